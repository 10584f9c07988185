//! odin_farm's leaves: what the farm in PostgreSQL needs and SQL cannot do well. Leaves compute and
//! return; they never raise the farm's own errors, because a custom SQLSTATE does not survive the
//! way through Rust. Their SQL declarations are written by hand in `leaves.sql`.

mod arguments;
mod cancel;
mod context;
mod domain;
mod expression;
mod jail;
mod lookups;
mod made;
mod plain;
mod plan;
mod records;
mod roles;
mod rows;
mod secrets;
mod timeout;
mod tools;
mod trail;

::pgrx::pg_module_magic!();
