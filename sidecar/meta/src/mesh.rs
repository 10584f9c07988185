//! Models: size, volume, surface and whether the skin is closed, from one pass over the triangles; a picture from a second.

use std::io::{BufRead, BufReader, Read, SeekFrom};

use serde::Serialize;

use crate::facts::{round, Picture};
use crate::picture::{render, Bounds};
use crate::text::lines;
use crate::{Error, Limits, Source};

pub type Triangle = [[f32; 3]; 3];

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MeshFacts {
    pub triangles: u64,
    pub size_mm: [f64; 3],
    pub min_mm: [f64; 3],
    pub max_mm: [f64; 3],
    /// Absent where the skin has holes: then there is no inside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_mm3: Option<f64>,
    pub area_mm2: f64,
    /// Every edge has its two sides, so the skin has no holes.
    pub watertight: bool,
    /// Normals point inwards: some slicers print nothing of it.
    pub inside_out: bool,
}

/// Sums over triangles; constant memory.
struct Measure {
    bounds: Bounds,
    triangles: u64,
    volume: f64,
    area: f64,
    /// Each directed edge adds its fingerprint and takes its reverse's away: zero means that all are paired.
    edges: [u64; 2],
}

impl Default for Measure {
    fn default() -> Self {
        Measure {
            bounds: Bounds::default(),
            triangles: 0,
            volume: 0.0,
            area: 0.0,
            edges: [0, 0],
        }
    }
}

/// Larger than any print, and small enough that products of three stay exact enough.
const FARTHEST_MM: f32 = 1e6;

impl Measure {
    fn add(&mut self, t: &Triangle, limits: &Limits) -> Result<(), Error> {
        self.triangles += 1;
        if self.triangles > limits.triangles {
            return Err(Error::TooMuch("triangles"));
        }
        if t.iter()
            .flatten()
            .any(|v| !v.is_finite() || v.abs() > FARTHEST_MM)
        {
            return Err(Error::bad(
                "a corner of the model is no place, or kilometres away",
            ));
        }
        for corner in t {
            self.bounds.include(corner);
        }
        let [a, b, c] = t.map(|v| v.map(f64::from));
        let cross = |u: [f64; 3], v: [f64; 3]| {
            [
                u[1] * v[2] - u[2] * v[1],
                u[2] * v[0] - u[0] * v[2],
                u[0] * v[1] - u[1] * v[0],
            ]
        };
        let minus = |u: [f64; 3], v: [f64; 3]| [u[0] - v[0], u[1] - v[1], u[2] - v[2]];
        let dot = |u: [f64; 3], v: [f64; 3]| u[0] * v[0] + u[1] * v[1] + u[2] * v[2];
        let normal = cross(minus(b, a), minus(c, a));
        self.area += dot(normal, normal).sqrt() / 2.0;
        self.volume += dot(a, cross(b, c)) / 6.0;
        for (from, to) in [(0, 1), (1, 2), (2, 0)] {
            if t[from] != t[to] {
                let (f, g) = (fingerprint(&t[from]), fingerprint(&t[to]));
                for (sum, salt) in self
                    .edges
                    .iter_mut()
                    .zip([0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f])
                {
                    let there = mix(f ^ mix(g ^ salt));
                    let back = mix(g ^ mix(f ^ salt));
                    *sum = sum.wrapping_add(there).wrapping_sub(back);
                }
            }
        }
        Ok(())
    }

    fn facts(&self, unit: f32) -> Result<MeshFacts, Error> {
        if self.triangles == 0 {
            return Err(Error::bad("there is no triangle in it"));
        }
        let unit = f64::from(unit);
        let place = |v: [f32; 3]| v.map(|v| round(f64::from(v) * unit, 3));
        let (min, max) = (place(self.bounds.min), place(self.bounds.max));
        let watertight = self.edges == [0, 0];
        Ok(MeshFacts {
            triangles: self.triangles,
            size_mm: std::array::from_fn(|i| round(max[i] - min[i], 3)),
            min_mm: min,
            max_mm: max,
            volume_mm3: watertight.then(|| round(self.volume.abs() * unit.powi(3), 2)),
            area_mm2: round(self.area * unit * unit, 2),
            watertight,
            inside_out: watertight && self.volume < 0.0,
        })
    }
}

/// A corner as a number; minus zero is zero.
fn fingerprint(v: &[f32; 3]) -> u64 {
    v.iter().fold(0x51_7c_c1_b7_27_22_0a_95, |h, c| {
        mix(h ^ u64::from((c + 0.0).to_bits()))
    })
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Triangles that have to be held because they come in pieces (OBJ, 3MF).
#[derive(Default)]
pub(crate) struct Soup {
    triangles: Vec<Triangle>,
}

impl Soup {
    pub(crate) fn add(&mut self, triangle: Triangle, limits: &Limits) -> Result<(), Error> {
        if self.triangles.len() >= limits.vertices * 2 {
            return Err(Error::TooMuch("triangles"));
        }
        self.triangles.push(triangle);
        Ok(())
    }

    pub(crate) fn finish(self, unit: f32) -> Result<(MeshFacts, Picture), Error> {
        let mut measure = Measure::default();
        for triangle in &self.triangles {
            measure.add(triangle, &Limits::default())?;
        }
        let facts = measure.facts(unit)?;
        let picture = render(&measure.bounds, |draw| {
            self.triangles.iter().for_each(&mut *draw);
            Ok(())
        })?;
        Ok((facts, picture))
    }
}

pub fn inspect_stl(
    source: &mut impl Source,
    limits: &Limits,
) -> Result<(MeshFacts, Picture), Error> {
    let mut measure = Measure::default();
    stl(source, limits, &mut |t| measure.add(t, limits))?;
    let facts = measure.facts(1.0)?;
    let picture = render(&measure.bounds, |draw| {
        stl(source, limits, &mut |t| {
            draw(t);
            Ok(())
        })
    })?;
    Ok((facts, picture))
}

type Each<'a> = &'a mut dyn FnMut(&Triangle) -> Result<(), Error>;

fn stl(source: &mut impl Source, limits: &Limits, each: Each<'_>) -> Result<(), Error> {
    let length = source.seek(SeekFrom::End(0))?;
    source.seek(SeekFrom::Start(0))?;
    let mut reader = BufReader::with_capacity(256 * 1024, source);
    let mut head = [0u8; 84];
    let mut have = 0;
    while have < head.len() {
        match reader.read(&mut head[have..])? {
            0 => break,
            n => have += n,
        }
    }
    let count = u32::from_le_bytes([head[80], head[81], head[82], head[83]]);
    // Binary files may begin with "solid" too: the count tells them apart.
    if have == 84
        && u64::from(count) * 50 + 84 <= length
        && count > 0
        && !looks_ascii(&head[..have], length, count)
    {
        return binary_stl(reader, count, each);
    }
    if !head[..have].trim_ascii_start().starts_with(b"solid") {
        return Err(Error::bad("neither a binary nor a text STL"));
    }
    let source = reader.into_inner();
    source.seek(SeekFrom::Start(0))?;
    ascii_stl(source, limits, each)
}

fn looks_ascii(head: &[u8], length: u64, count: u32) -> bool {
    head.starts_with(b"solid")
        && head.iter().all(|b| b.is_ascii())
        && u64::from(count) * 50 + 84 != length
}

fn binary_stl(mut reader: impl BufRead, count: u32, each: Each<'_>) -> Result<(), Error> {
    let mut facet = [0u8; 50];
    for _ in 0..count {
        reader.read_exact(&mut facet)?;
        let at =
            |n: usize| f32::from_le_bytes([facet[n], facet[n + 1], facet[n + 2], facet[n + 3]]);
        each(&std::array::from_fn(|corner| {
            std::array::from_fn(|axis| at(12 + corner * 12 + axis * 4))
        }))?;
    }
    Ok(())
}

fn ascii_stl(reader: impl Read, limits: &Limits, each: Each<'_>) -> Result<(), Error> {
    let mut corners: Vec<[f32; 3]> = Vec::with_capacity(3);
    lines(reader, limits.line, |line| {
        let line = line.trim_ascii();
        if let Some(rest) = line.strip_prefix(b"vertex") {
            corners.push(three(rest)?);
            if let [a, b, c] = corners[..] {
                each(&[a, b, c])?;
                corners.clear();
            }
        } else if line.starts_with(b"outer loop") {
            corners.clear();
        }
        Ok(())
    })?;
    Ok(())
}

fn three(text: &[u8]) -> Result<[f32; 3], Error> {
    let text = std::str::from_utf8(text).map_err(|_| Error::bad("a vertex is no text"))?;
    let mut words = text.split_ascii_whitespace().map(str::parse::<f32>);
    match (words.next(), words.next(), words.next()) {
        (Some(Ok(x)), Some(Ok(y)), Some(Ok(z))) => Ok([x, y, z]),
        _ => Err(Error::bad("a vertex has no three numbers")),
    }
}

pub fn inspect_obj(
    source: &mut impl Source,
    limits: &Limits,
) -> Result<(MeshFacts, Picture), Error> {
    source.seek(SeekFrom::Start(0))?;
    let mut vertices: Vec<[f32; 3]> = Vec::new();
    let mut soup = Soup::default();
    let mut face: Vec<[f32; 3]> = Vec::new();
    lines(source, limits.line, |line| {
        let line = line.trim_ascii();
        if let Some(rest) = line.strip_prefix(b"v ") {
            if vertices.len() >= limits.vertices {
                return Err(Error::TooMuch("vertices"));
            }
            vertices.push(three(rest)?);
        } else if let Some(rest) = line.strip_prefix(b"f ") {
            face.clear();
            let text = std::str::from_utf8(rest).map_err(|_| Error::bad("a face is no text"))?;
            for word in text.split_ascii_whitespace() {
                face.push(corner(word, &vertices)?);
            }
            for pair in face.windows(2).skip(1) {
                soup.add([face[0], pair[0], pair[1]], limits)?;
            }
        }
        Ok(())
    })?;
    soup.finish(1.0)
}

/// "12", "12/3/4", "-1": counted from one, or from the end.
fn corner(word: &str, vertices: &[[f32; 3]]) -> Result<[f32; 3], Error> {
    let number: i64 = word
        .split('/')
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    let at = if number < 0 {
        vertices.len() as i64 + number
    } else {
        number - 1
    };
    let found = usize::try_from(at).ok().and_then(|at| vertices.get(at));
    found
        .copied()
        .ok_or_else(|| Error::bad("a face names a vertex that is not there"))
}

#[cfg(test)]
#[path = "mesh_tests.rs"]
pub(crate) mod tests;
