// Preloaded into a foreign program (node --import): its deadlines, written for a quick machine, last ten times as long.
// What else runs in its process keeps its time. ODIN_TEST_PATIENT = a part of the path of the program's own files.
const LONGER = 10;
// Shorter ones are pauses between two looks.
const LEAST = 300;

/** Called from a clock below: is it the program that asks? */
const asksItself = () => new Error().stack.split('\n', 4)[3]?.includes(process.env.ODIN_TEST_PATIENT);

const later = globalThis.setTimeout;
const patient = (work, ms, ...more) => later(work, ms >= LEAST && asksItself() ? ms * LONGER : ms, ...more);
globalThis.setTimeout = Object.defineProperties(patient, Object.getOwnPropertyDescriptors(later));

const now = Date.now;
const begun = now();
let last = begun;
Date.now = () => {
  if (!asksItself()) return now();
  // Never the same twice: a program may number its requests by it.
  last = Math.max(last + 1, Math.floor(begun + (now() - begun) / LONGER));
  return last;
};
