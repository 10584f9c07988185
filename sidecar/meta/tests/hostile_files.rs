//! Thousands of damaged and invented files, the same ones in every run: an answer or an error, never a panic or a hang.

use std::io::{Cursor, Write};
use std::time::{Duration, Instant};

use odin_meta::{inspect, Limits};
use zip::write::SimpleFileOptions;
use zip::ZipWriter;

const ROUNDS: usize = 400;
const SLOWEST: Duration = Duration::from_secs(120);

/// xorshift64*: no clock, no dependency, the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    fn below(&mut self, n: usize) -> usize {
        (self.roll() % n.max(1) as u64) as usize
    }
}

const WORDS: &[&[u8]] = &[
    b";TIME:",
    b"; thumbnail begin 9999x9999 1",
    b"; thumbnail end",
    b"99999999999999999999",
    b"-",
    b"1e308",
    b"NaN",
    b"inf",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"; filament used [g] = ",
    b",,,,,,,,,,,,,,,,",
    b"G1 X",
    b"T63",
    b"T64",
    b"T4294967295",
    b"<component objectid=\"1\"/>",
    b"vertex nan nan nan",
    b"f -9999999999 1 2",
    b"&#x110000;",
    b"<![CDATA[",
    b"\"",
    b">",
    b"\n",
    b"; total estimated time: 9999999999d",
];

fn damage(dice: &mut Dice, seed: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=dice.below(12) {
        let at = dice.below(bytes.len());
        match dice.below(7) {
            0 if !bytes.is_empty() => bytes[at] = dice.roll() as u8,
            1 => bytes.truncate(at),
            2 => {
                let word = WORDS[dice.below(WORDS.len())];
                bytes.splice(at..at, word.iter().copied());
            }
            3 if !bytes.is_empty() => bytes[at] ^= 1 << dice.below(8),
            4 => {
                let end = (at + dice.below(200)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part.iter().copied().cycle().take(part.len() * 3));
            }
            5 => {
                let end = (at + dice.below(64)).min(bytes.len());
                bytes.drain(at..end);
            }
            _ if bytes.len() >= at + 4 => {
                bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes())
            }
            _ => {}
        }
    }
    bytes
}

fn archive(entries: &[(&str, &[u8])], stored: bool) -> Vec<u8> {
    let method = if stored {
        zip::CompressionMethod::Stored
    } else {
        zip::CompressionMethod::Deflated
    };
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        zip.start_file(
            *name,
            SimpleFileOptions::default().compression_method(method),
        )
        .unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn whatever_comes() {
    let cura: &[u8] = include_bytes!("files/cura.gcode");
    let prusa: &[u8] = include_bytes!("files/prusa.gcode");
    let gcode = [&prusa[..3000], &prusa[prusa.len() - 9000..]].concat();
    let info: &[u8] = br##"<config><plate><metadata key="index" value="1"/><metadata key="prediction" value="600"/><filament id="1" type="PLA" color="#FF8000" used_m="3.5" used_g="10.5"/></plate></config>"##;
    let model: &[u8] = br#"<model unit="millimeter"><resources><object id="1"><mesh><vertices><vertex x="0" y="0" z="0"/><vertex x="9" y="0" z="0"/><vertex x="0" y="9" z="0"/><vertex x="0" y="0" z="9"/></vertices><triangles><triangle v1="0" v2="2" v3="1"/><triangle v1="0" v2="1" v3="3"/><triangle v1="1" v2="2" v3="3"/><triangle v1="2" v2="0" v3="3"/></triangles></mesh></object><object id="2"><components><component objectid="1" transform="1 0 0 0 1 0 0 0 1 5 5 5"/></components></object></resources><build><item objectid="2"/></build></model>"#;
    let stored = archive(
        &[
            ("Metadata/plate_1.gcode", &gcode),
            ("Metadata/slice_info.config", info),
        ],
        true,
    );
    let packed = archive(
        &[
            ("Metadata/plate_1.gcode", &gcode),
            ("Metadata/slice_info.config", info),
        ],
        false,
    );
    let model_zip = archive(&[("3D/3dmodel.model", model)], true);
    let obj: &[u8] = b"v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 2 3 4\nf 3 1 4\n";
    let ascii: &[u8] = b"solid a\nfacet normal 0 0 0\nouter loop\nvertex 0 0 0\nvertex 1 0 0\nvertex 0 1 0\nendloop\nendfacet\nendsolid\n";
    let seeds: [(&str, &[u8]); 9] = [
        ("gcode", &cura[..8000]),
        ("gcode", &gcode),
        ("gcode_3mf", &stored),
        ("gcode_3mf", &packed),
        ("3mf", &model_zip),
        ("obj", obj),
        ("stl", ascii),
        ("stl", include_bytes!("files/cube.stl")),
        ("gcode", b""),
    ];
    let limits = Limits {
        unpacked: 64 << 20,
        vertices: 100_000,
        triangles: 200_000,
        ..Limits::default()
    };
    let mut dice = Dice(0x0d1e_fa12_3456_789b);
    let mut answers = [0usize; 2];
    for round in 0..ROUNDS {
        for (kind, seed) in &seeds {
            let bytes = damage(&mut dice, seed);
            let started = Instant::now();
            let answer = inspect(kind, &mut Cursor::new(&bytes), &limits);
            assert!(
                started.elapsed() < SLOWEST,
                "round {round} of {kind} took {:?}",
                started.elapsed()
            );
            answers[usize::from(answer.is_ok())] += 1;
            if let Ok(odin_meta::Inspected::Sliced(facts)) = &answer {
                let text = serde_json::to_string(facts).unwrap();
                assert!(
                    !text.contains("null"),
                    "a number that JSON cannot hold: {text}"
                );
                assert!(facts.tools.len() <= 64 && text.len() < 20_000);
            }
        }
    }
    // Both happen, or this test looks at nothing.
    assert!(answers[0] > ROUNDS && answers[1] > ROUNDS, "{answers:?}");
}

#[test]
fn long_things_end() {
    let long = vec![b'G'; 30 << 20];
    assert!(inspect("gcode", &mut Cursor::new(&long), &Limits::default()).is_err());
    let model = [
        &b"<model><resources><object id=\""[..],
        &vec![b'1'; 8 << 20],
    ]
    .concat();
    let endless = archive(&[("3D/3dmodel.model", &model)], true);
    assert!(inspect("3mf", &mut Cursor::new(&endless), &Limits::default()).is_err());
    let mut huge = vec![0u8; 80];
    huge.extend(60_000u32.to_le_bytes());
    for n in 0..60_000u32 {
        huge.extend([0u8; 12]);
        for v in [
            -900.0,
            -900.0,
            0.0,
            900.0,
            -900.0,
            0.0,
            0.0,
            900.0,
            n as f32 / 1000.0f32,
        ] {
            huge.extend(v.to_le_bytes());
        }
        huge.extend([0u8; 2]);
    }
    let started = Instant::now();
    assert!(inspect("stl", &mut Cursor::new(&huge), &Limits::default()).is_ok());
    assert!(started.elapsed() < SLOWEST, "{:?}", started.elapsed());
}

#[test]
fn parts_of_parts_of_parts_end() {
    let mut model = String::from("<model><resources>");
    for id in 1..=8 {
        model.push_str(&format!("<object id=\"{id}\"><components>"));
        for _ in 0..900 {
            model.push_str(&format!("<component objectid=\"{}\"/>", id + 1));
        }
        model.push_str("</components></object>");
    }
    model.push_str("</resources><build><item objectid=\"1\"/></build></model>");
    let bytes = archive(&[("3D/3dmodel.model", model.as_bytes())], false);
    let started = Instant::now();
    assert!(inspect("3mf", &mut Cursor::new(&bytes), &Limits::default()).is_err());
    assert!(started.elapsed() < SLOWEST);
}
