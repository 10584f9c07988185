//! What printers have loaded, as numbers and bits: cheap to compare and to copy.

use std::collections::HashMap;

/// What a slot can hold, told once and named by a number: a row of bits says which needs it satisfies.
#[derive(Default)]
pub(super) struct Contents {
    known: HashMap<Vec<u32>, u16>,
    bits: Vec<u64>,
    words: usize,
}

impl Contents {
    pub(super) fn new(most_need: u32) -> Contents {
        Contents {
            words: most_need as usize / 64 + 1,
            ..Contents::default()
        }
    }

    pub(super) fn number(&mut self, mut needs: Vec<u32>) -> Result<u16, String> {
        needs.sort_unstable();
        needs.dedup();
        if let Some(n) = self.known.get(&needs) {
            return Ok(*n);
        }
        let n = u16::try_from(self.known.len())
            .map_err(|_| "more than 65,536 different spools".to_owned())?;
        let from = self.bits.len();
        self.bits.resize(from + self.words, 0);
        for need in &needs {
            self.bits[from + *need as usize / 64] |= 1 << (need % 64);
        }
        self.known.insert(needs, n);
        Ok(n)
    }

    pub(super) fn satisfies(&self, content: u16, need: u32) -> bool {
        self.bits[content as usize * self.words + need as usize / 64] >> (need % 64) & 1 == 1
    }
}

/// A printer's slots, small enough to be copied for every trial without asking for memory.
#[derive(Clone, Copy)]
pub(super) struct Slots {
    holds: [u16; MOST_SLOTS],
    len: usize,
}

/// A machine has 16 slots at most, and a few trays outside; needs beyond them are counted, not kept.
const MOST_SLOTS: usize = 40;

impl Slots {
    pub(super) fn none() -> Slots {
        Slots {
            holds: [0; MOST_SLOTS],
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn all(&self) -> &[u16] {
        &self.holds[..self.len]
    }

    pub(super) fn push(&mut self, content: u16) {
        if self.len < MOST_SLOTS {
            self.holds[self.len] = content;
            self.len += 1;
        }
    }

    pub(super) fn remove(&mut self, at: usize) {
        self.holds.copy_within(at + 1..self.len, at);
        self.len -= 1;
    }
}
