//! The database core through the gateway's own login: what a tool, a key or a person may not do, each
//! judged by what the superuser sees afterwards.

#[macro_use]
mod jail;
mod access;
mod audit;
mod confirm;
mod content;
mod docs;
mod escape;
mod holes;
mod idempotency;
mod keys;
mod limits;
mod people;
mod preview;
mod registry;
mod short_way;
