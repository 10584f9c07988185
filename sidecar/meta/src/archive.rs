//! 3MF archives: sliced ones of Bambu Studio and OrcaSlicer, and plain models. What comes out of an entry is counted
//! against what went in, so a bomb ends early.

use std::io::{BufRead, BufReader, Read};

use quick_xml::events::{BytesStart, Event};
use quick_xml::Reader;
use serde_json::Value;
use zip::ZipArchive;

use crate::facts::{color, sane, words, Facts, Picture};
use crate::gcode::{picture_format, read_gcode};
use crate::mesh::{MeshFacts, Soup};
use crate::text::{number, numbers};
use crate::{Error, Limits, Source};

const SMALL: u64 = 8 * 1024 * 1024;

type Zip<'a, S> = ZipArchive<&'a mut S>;

fn open<'a, S: Source>(source: &'a mut S, limits: &Limits) -> Result<Zip<'a, S>, Error> {
    let zip = ZipArchive::new(source).map_err(|e| Error::bad(format!("no 3MF archive: {e}")))?;
    if zip.len() > limits.entries {
        return Err(Error::TooMuch("entries in the archive"));
    }
    Ok(zip)
}

fn names<S: Source>(zip: &Zip<'_, S>) -> Vec<String> {
    zip.file_names()
        .filter_map(|name| Some(name.ok()?.into_owned()))
        .collect()
}

/// An entry that gives at most `most` bytes, and no more than `ratio` times what it takes in the archive.
struct Careful<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Careful<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        match self.left.checked_sub(n as u64) {
            Some(left) => self.left = left,
            None => {
                return Err(std::io::Error::other(
                    "an entry unpacks to far more than it should",
                ));
            }
        }
        Ok(n)
    }
}

fn entry<'z, 's, S: Source>(
    zip: &'z mut Zip<'s, S>,
    name: &str,
    most: u64,
    limits: &Limits,
) -> Result<Option<impl Read + use<'z, 's, S>>, Error> {
    let file = match zip.by_name(name) {
        Ok(file) => file,
        Err(zip::result::ZipError::FileNotFound) => return Ok(None),
        Err(e) => return Err(Error::bad(format!("{name}: {e}"))),
    };
    let by_ratio = file
        .compressed_size()
        .saturating_mul(limits.ratio)
        .saturating_add(1 << 20);
    let left = by_ratio.min(most).min(limits.unpacked);
    Ok(Some(Careful { inner: file, left }))
}

fn small<S: Source>(
    zip: &mut Zip<'_, S>,
    name: &str,
    limits: &Limits,
) -> Result<Option<Vec<u8>>, Error> {
    let Some(mut reader) = entry(zip, name, SMALL, limits)? else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// A plate that was sliced: what the slicer wrote beside it, and the G-code itself for what it did not.
pub fn read_sliced_3mf(source: &mut impl Source, limits: &Limits) -> Result<Facts, Error> {
    let mut zip = open(source, limits)?;
    let mut plates: Vec<u32> = names(&zip)
        .iter()
        .filter_map(|name| plate_number(name))
        .collect();
    plates.sort_unstable();
    plates.dedup();
    let Some(&plate) = plates.first() else {
        return Err(Error::bad("there is no plate with G-code in the archive"));
    };
    let gcode = format!("Metadata/plate_{plate}.gcode");
    let mut facts = match entry(&mut zip, &gcode, limits.unpacked, limits)? {
        Some(reader) => read_gcode(reader, limits)?,
        None => return Err(Error::bad("the plate's G-code is missing")),
    };
    facts.plates = Some(plates.len() as u32);
    facts.plate = Some(plate);
    if let Some(xml) = small(&mut zip, "Metadata/slice_info.config", limits)? {
        slice_info(&xml, plate, &mut facts)?;
    }
    if let Some(json) = small(&mut zip, "Metadata/project_settings.config", limits)? {
        project(&json, &mut facts);
    }
    for name in [
        format!("Metadata/plate_{plate}.png"),
        format!("Metadata/plate_{plate}_small.png"),
    ] {
        if facts.picture.is_none() {
            facts.picture =
                small(&mut zip, &name, limits)?.and_then(|bytes| picture(bytes, limits));
        }
    }
    facts.settle();
    Ok(facts)
}

fn plate_number(name: &str) -> Option<u32> {
    let number = name
        .strip_prefix("Metadata/plate_")?
        .strip_suffix(".gcode")?;
    number.parse().ok().filter(|n| (1..=999).contains(n))
}

fn picture(bytes: Vec<u8>, limits: &Limits) -> Option<Picture> {
    if bytes.len() > limits.picture || picture_format(&bytes)? != "png" {
        return None;
    }
    // Width and height stand at fixed places of a PNG.
    let size = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let (width, height) = (size(16)?, size(20)?);
    Some(Picture {
        width,
        height,
        format: "png",
        bytes,
    })
}

fn attribute(tag: &BytesStart<'_>, name: &str) -> Option<String> {
    let found = tag.try_get_attribute(name).ok().flatten()?;
    if found.value.len() > 4096 {
        return None;
    }
    quick_xml::escape::unescape(&found.value)
        .ok()
        .map(|text| text.into_owned())
}

fn attribute_number(tag: &BytesStart<'_>, name: &str, most: f64) -> Option<f64> {
    let found = tag.try_get_attribute(name).ok().flatten()?;
    sane(number(found.value.as_bytes())?.0, most)
}

/// <plate><metadata key value/><filament id type color used_m used_g/></plate>
fn slice_info(xml: &[u8], wanted: u32, facts: &mut Facts) -> Result<(), Error> {
    let mut reader = Reader::from_reader(xml);
    let mut buffer = Vec::new();
    let mut plate = Facts::default();
    let mut index = 0;
    loop {
        let event = reader
            .read_event_into(&mut buffer)
            .map_err(|e| Error::bad(format!("slice_info.config: {e}")))?;
        match event {
            Event::Eof => return Ok(()),
            Event::Start(tag) | Event::Empty(tag) => match tag.name().as_ref() {
                "plate" => (plate, index) = (Facts::default(), 0),
                "metadata" => {
                    let value = attribute(&tag, "value").unwrap_or_default();
                    let one = |most| numbers(&value, most, 1).into_iter().next().flatten();
                    match attribute(&tag, "key").as_deref() {
                        Some("index") => index = one(999.0).unwrap_or(0.0) as u32,
                        Some("prediction") => plate.print_seconds = one(1e7),
                        Some("weight") => plate.grams = one(1e5),
                        Some("printer_model_id") => plate.printer_model = words(&value, 100),
                        Some("nozzle_diameters") => plate.nozzle_mm = one(10.0),
                        Some("support_used") => plate.supports = Some(value == "true"),
                        _ => {}
                    }
                }
                "filament" => {
                    let id = attribute_number(&tag, "id", 64.0).unwrap_or(0.0) as usize;
                    if let Some(tool) = id.checked_sub(1).and_then(|tool| plate.tool(tool)) {
                        tool.material = attribute(&tag, "type").and_then(|t| words(&t, 30));
                        tool.color = attribute(&tag, "color").and_then(|c| color(&c));
                        tool.mm = attribute_number(&tag, "used_m", 1e5).map(|m| m * 1000.0);
                        tool.grams = attribute_number(&tag, "used_g", 1e5);
                    }
                }
                _ => {}
            },
            Event::End(tag) if tag.name().as_ref() == "plate" && index == wanted => {
                take_over(facts, std::mem::take(&mut plate));
                return Ok(());
            }
            _ => {}
        }
        buffer.clear();
    }
}

/// What stands beside the G-code is per plate and exact: it wins.
fn take_over(facts: &mut Facts, plate: Facts) {
    facts.print_seconds = plate.print_seconds.or(facts.print_seconds);
    facts.printer_model = plate.printer_model.or(facts.printer_model.take());
    facts.nozzle_mm = plate.nozzle_mm.or(facts.nozzle_mm);
    facts.supports = plate.supports.or(facts.supports);
    if !plate.tools.is_empty() {
        facts.tools = plate.tools;
        facts.grams = plate.grams;
        facts.filament_mm = None;
        facts.counted.clear();
    }
}

fn project(json: &[u8], facts: &mut Facts) {
    let Ok(settings) = serde_json::from_slice::<Value>(json) else {
        return;
    };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let of_tool = |key: &str, tool: u32| settings[key].get(tool as usize).and_then(text);
    for tool in &mut facts.tools {
        if tool.material.is_none() {
            tool.material = of_tool("filament_type", tool.tool).and_then(|t| words(&t, 30));
        }
        if tool.color.is_none() {
            tool.color = of_tool("filament_colour", tool.tool).and_then(|c| color(&c));
        }
    }
    let length = |key: &str| {
        let value = settings[key].get(0).unwrap_or(&settings[key]);
        value
            .as_str()
            .and_then(|t| numbers(t, 10.0, 1).into_iter().next().flatten())
    };
    facts.layer_height_mm = facts.layer_height_mm.or_else(|| length("layer_height"));
    facts.nozzle_mm = facts.nozzle_mm.or_else(|| length("nozzle_diameter"));
}

/// A model in a 3MF: the meshes of its build, each at its place.
pub fn read_model_3mf(
    source: &mut impl Source,
    limits: &Limits,
) -> Result<(MeshFacts, Picture), Error> {
    let mut zip = open(source, limits)?;
    let mut names = names(&zip);
    names.retain(|name| name.to_ascii_lowercase().ends_with(".model"));
    let mut model = Model::default();
    for name in names {
        if let Some(reader) = entry(&mut zip, &name, limits.unpacked, limits)? {
            read_model(reader, &name, &mut model, limits)?;
        }
    }
    let mut soup = Soup::default();
    let items = std::mem::take(&mut model.items);
    for item in &items {
        model.place(item, &IDENTITY, 0, &mut soup, limits)?;
    }
    if items.is_empty() {
        for object in &model.objects {
            let part = Part {
                file: object.file.clone(),
                object: object.id,
                transform: IDENTITY,
            };
            model.place(&part, &IDENTITY, 0, &mut soup, limits)?;
        }
    }
    soup.finish(model.unit)
}

/// Twelve numbers of a 3MF transform: three rows of the rotation, then the shift.
type Transform = [f32; 12];
const IDENTITY: Transform = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0];
const DEEPEST: usize = 8;

struct Model {
    unit: f32,
    objects: Vec<Object>,
    items: Vec<Part>,
    vertices: usize,
    /// How many objects were put in place: parts of parts multiply.
    placed: std::cell::Cell<u32>,
}

const MOST_PLACED: u32 = 20_000;

impl Default for Model {
    fn default() -> Self {
        Model {
            unit: 1.0,
            objects: Vec::new(),
            items: Vec::new(),
            vertices: 0,
            placed: std::cell::Cell::new(0),
        }
    }
}

#[derive(Default)]
struct Object {
    file: String,
    id: u32,
    vertices: Vec<[f32; 3]>,
    triangles: Vec<[u32; 3]>,
    parts: Vec<Part>,
}

#[derive(Clone)]
struct Part {
    /// The model file that holds the object; one file refers to another by path.
    file: String,
    object: u32,
    transform: Transform,
}

fn read_model(
    reader: impl Read,
    file: &str,
    model: &mut Model,
    limits: &Limits,
) -> Result<(), Error> {
    let mut xml = Reader::from_reader(Tokens::new(reader));
    let mut buffer = Vec::new();
    let mut object = Object::default();
    loop {
        let event = xml
            .read_event_into(&mut buffer)
            .map_err(|e| Error::bad(format!("{file}: {e}")))?;
        match event {
            Event::Eof => return Ok(()),
            Event::Start(tag) | Event::Empty(tag) => match tag.local_name().as_ref() {
                "model" => {
                    model.unit = match attribute(&tag, "unit").as_deref() {
                        Some("micron") => 0.001,
                        Some("centimeter") => 10.0,
                        Some("inch") => 25.4,
                        Some("foot") => 304.8,
                        Some("meter") => 1000.0,
                        _ => 1.0,
                    };
                }
                "object" => {
                    object = Object {
                        file: file.to_owned(),
                        id: attribute_number(&tag, "id", 4e9).unwrap_or(0.0) as u32,
                        ..Object::default()
                    };
                }
                "vertex" => {
                    model.vertices += 1;
                    if model.vertices > limits.vertices {
                        return Err(Error::TooMuch("vertices"));
                    }
                    object
                        .vertices
                        .push([place(&tag, "x"), place(&tag, "y"), place(&tag, "z")]);
                }
                "triangle" => {
                    if object.triangles.len() >= limits.vertices * 2 {
                        return Err(Error::TooMuch("triangles"));
                    }
                    let corner =
                        |name| attribute_number(&tag, name, 4e9).map_or(u32::MAX, |n| n as u32);
                    object
                        .triangles
                        .push([corner("v1"), corner("v2"), corner("v3")]);
                }
                "component" if object.parts.len() < 1000 => object.parts.push(part(&tag, file)),
                "item" if model.items.len() < 1000 => model.items.push(part(&tag, file)),
                _ => {}
            },
            Event::End(tag) if tag.local_name().as_ref() == "object" => {
                if model.objects.len() >= 1000 {
                    return Err(Error::TooMuch("objects"));
                }
                model.objects.push(std::mem::take(&mut object));
            }
            _ => {}
        }
        buffer.clear();
        xml.get_mut().fresh();
    }
}

/// One tag or text is held in memory, so it must not be endless.
struct Tokens<R> {
    inner: BufReader<R>,
    left: usize,
}

const LONGEST_TOKEN: usize = 1024 * 1024;

impl<R: Read> Tokens<R> {
    fn new(reader: R) -> Self {
        Tokens {
            inner: BufReader::with_capacity(64 * 1024, reader),
            left: LONGEST_TOKEN,
        }
    }

    fn fresh(&mut self) {
        self.left = LONGEST_TOKEN;
    }
}

impl<R: Read> Read for Tokens<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.inner.read(buffer)
    }
}

impl<R: Read> BufRead for Tokens<R> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        if self.left == 0 {
            return Err(std::io::Error::other("a tag or text without end"));
        }
        self.inner.fill_buf()
    }

    fn consume(&mut self, n: usize) {
        self.left = self.left.saturating_sub(n);
        self.inner.consume(n);
    }
}

fn place(tag: &BytesStart<'_>, name: &str) -> f32 {
    let found = tag.try_get_attribute(name).ok().flatten();
    // Exponents happen here.
    found
        .and_then(|a| a.value.trim().parse().ok())
        .unwrap_or(f32::NAN)
}

fn part(tag: &BytesStart<'_>, file: &str) -> Part {
    let path = tag
        .attributes()
        .with_checks(false)
        .take(20)
        .filter_map(Result::ok)
        .find(|a| a.key.local_name().as_ref() == "path")
        .map(|a| a.value.into_owned());
    let mut transform = IDENTITY;
    if let Some(text) = attribute(tag, "transform") {
        for (slot, word) in transform.iter_mut().zip(text.split_whitespace()) {
            *slot = word.parse().unwrap_or(f32::NAN);
        }
    }
    Part {
        file: path.map_or_else(
            || file.to_owned(),
            |path| path.trim_start_matches('/').to_owned(),
        ),
        object: attribute_number(tag, "objectid", 4e9).unwrap_or(0.0) as u32,
        transform,
    }
}

impl Model {
    fn place(
        &self,
        part: &Part,
        outer: &Transform,
        depth: usize,
        soup: &mut Soup,
        limits: &Limits,
    ) -> Result<(), Error> {
        if depth > DEEPEST {
            return Err(Error::TooMuch("objects within objects"));
        }
        self.placed.set(self.placed.get() + 1);
        if self.placed.get() > MOST_PLACED {
            return Err(Error::TooMuch("objects in place"));
        }
        let found = self
            .objects
            .iter()
            .find(|o| o.id == part.object && o.file == part.file);
        let Some(object) = found else {
            return Ok(());
        };
        let whole = combine(&part.transform, outer);
        for corners in &object.triangles {
            let at = |n: u32| object.vertices.get(n as usize).map(|v| apply(&whole, v));
            let [Some(a), Some(b), Some(c)] = [at(corners[0]), at(corners[1]), at(corners[2])]
            else {
                return Err(Error::bad("a triangle names a vertex that is not there"));
            };
            soup.add([a, b, c], limits)?;
        }
        for inner in &object.parts {
            self.place(inner, &whole, depth + 1, soup, limits)?;
        }
        Ok(())
    }
}

fn apply(t: &Transform, v: &[f32; 3]) -> [f32; 3] {
    std::array::from_fn(|i| v[0] * t[i] + v[1] * t[3 + i] + v[2] * t[6 + i] + t[9 + i])
}

/// First `inner`, then `outer`.
fn combine(inner: &Transform, outer: &Transform) -> Transform {
    let mut out = [0.0; 12];
    for row in 0..4 {
        let v = [inner[row * 3], inner[row * 3 + 1], inner[row * 3 + 2]];
        for i in 0..3 {
            let shift = if row == 3 { outer[9 + i] } else { 0.0 };
            out[row * 3 + i] = v[0] * outer[i] + v[1] * outer[3 + i] + v[2] * outer[6 + i] + shift;
        }
    }
    out
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
