//! Model sites: where designs come from, and what each says about them.

pub mod thingiverse;
