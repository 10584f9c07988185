//! What a G-code file, a sliced 3MF or a 3D model says about itself. The bytes are a stranger's: every loop, buffer and
//! number has a cap, a bad file gives an error, and nothing is written anywhere.

mod archive;
mod facts;
mod gcode;
mod mesh;
mod picture;
mod text;

pub use archive::{read_model_3mf, read_sliced_3mf};
pub use facts::{Facts, Picture, ToolFacts};
pub use gcode::read_gcode;
pub use mesh::{inspect_obj, inspect_stl, MeshFacts, Triangle};
pub use picture::{render, Bounds};

use std::io::{Read, Seek};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Unreadable(String),
    #[error("the file goes beyond a limit: {0}")]
    TooMuch(&'static str),
    #[error("the bytes cannot be read: {0}")]
    Io(#[from] std::io::Error),
}

impl Error {
    pub(crate) fn bad(text: impl Into<String>) -> Error {
        Error::Unreadable(text.into())
    }
}

/// How much of a file is looked at, and how much is kept of it.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest line that is looked at; the rest of a longer one is skipped.
    pub line: usize,
    /// Largest picture that is kept.
    pub picture: usize,
    /// Bytes that come out of an archive in all.
    pub unpacked: u64,
    /// How many times larger than its packed form an entry may be.
    pub ratio: u64,
    pub entries: usize,
    /// Vertices and triangles of a model that has to be held in memory (OBJ, 3MF).
    pub vertices: usize,
    pub triangles: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            line: 64 * 1024,
            picture: 2 * 1024 * 1024,
            unpacked: 4 << 30,
            ratio: 200,
            entries: 2_000,
            vertices: 3_000_000,
            triangles: 30_000_000,
        }
    }
}

/// Anything that can be read from any place, as a file in the store.
pub trait Source: Read + Seek {}
impl<T: Read + Seek> Source for T {}

/// What a file of the store turned out to be.
#[derive(Debug)]
pub enum Inspected {
    Sliced(Box<Facts>),
    Model(MeshFacts, Option<Picture>),
}

/// Read a file by its kind, as the store names it.
pub fn inspect(kind: &str, source: &mut impl Source, limits: &Limits) -> Result<Inspected, Error> {
    let sliced = |facts| Inspected::Sliced(Box::new(facts));
    let model = |(facts, picture)| Inspected::Model(facts, Some(picture));
    match kind {
        "gcode" => read_gcode(source, limits).map(sliced),
        "gcode_3mf" => read_sliced_3mf(source, limits).map(sliced),
        "stl" => inspect_stl(source, limits).map(model),
        "obj" => inspect_obj(source, limits).map(model),
        "3mf" => read_model_3mf(source, limits).map(model),
        other => Err(Error::bad(format!("files of kind {other} are not read"))),
    }
}
