// Preloaded into the conformance suite (node --import), which has no option for a header: adds the bearer key of
// ODIN_TEST_KEY to everything it sends, whether by fetch, undici or node:http.
import http from 'node:http';
import { createRequire } from 'node:module';

const require = createRequire(process.env.NODE_MODULES + '/');
const { getGlobalDispatcher, setGlobalDispatcher } = require('undici');
const bearer = `Bearer ${process.env.ODIN_TEST_KEY}`;

const withKey = (dispatch) => (options, handler) => {
  const headers = options.headers;
  let next = headers;
  if (Array.isArray(headers)) {
    const has = headers.some((h, i) => i % 2 === 0 && String(h).toLowerCase() === 'authorization');
    next = has ? headers : [...headers, 'authorization', bearer];
  } else if (headers && typeof headers[Symbol.iterator] === 'function') {
    const entries = Object.fromEntries(headers);
    next = 'authorization' in entries ? entries : { ...entries, authorization: bearer };
  } else {
    const has = headers && Object.keys(headers).some((h) => h.toLowerCase() === 'authorization');
    next = has ? headers : { ...headers, authorization: bearer };
  }
  return dispatch({ ...options, headers: next }, handler);
};
setGlobalDispatcher(getGlobalDispatcher().compose(withKey));

const request = http.request;
http.request = (...args) => {
  const made = request(...args);
  if (!made.hasHeader('authorization')) made.setHeader('authorization', bearer);
  return made;
};
