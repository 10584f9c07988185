//! Files that real slicers made: CuraEngine 4.13 (alone, so its header is unfinished) and PrusaSlicer 2.5 of a 6 mm cube.

use std::io::Cursor;

use odin_meta::{inspect, Facts, Inspected, Limits};

fn sliced(bytes: &[u8]) -> Facts {
    match inspect("gcode", &mut Cursor::new(bytes), &Limits::default()) {
        Ok(Inspected::Sliced(facts)) => *facts,
        other => panic!("{other:?}"),
    }
}

#[test]
fn cura_engine_alone() {
    let facts = sliced(include_bytes!("files/cura.gcode"));
    assert_eq!(facts.slicer.as_deref(), Some("Cura"));
    assert_eq!(facts.slicer_version.as_deref(), Some("4.13.0"));
    // The engine's own log says 139 s and 131.833 mm.
    let seconds = facts.print_seconds.unwrap();
    assert!((seconds - 139.0).abs() < 2.0, "{seconds}");
    let mm = facts.filament_mm.unwrap();
    assert!((mm - 131.8).abs() < 2.0, "{mm}");
    assert_eq!(facts.layers, Some(20));
    assert_eq!(facts.layer_height_mm, Some(0.3));
    assert!((facts.max_mm.unwrap()[2] - 6.0).abs() < 0.01);
}

#[test]
fn prusa_slicer() {
    let facts = sliced(include_bytes!("files/prusa.gcode"));
    assert_eq!(facts.slicer.as_deref(), Some("PrusaSlicer"));
    assert!(facts.print_seconds.is_some_and(|s| s > 60.0 && s < 600.0));
    assert!(facts.grams.is_some_and(|g| g > 0.1 && g < 1.0));
    assert_eq!(facts.tools.len(), 1);
    assert_eq!(facts.tools[0].material.as_deref(), Some("PLA"));
    assert_eq!(facts.tools[0].color.as_deref(), Some("#FF8000"));
    assert_eq!(
        (facts.layer_height_mm, facts.nozzle_mm),
        (Some(0.3), Some(0.4))
    );
    assert!(facts.counted.is_empty());
    let size = |i: usize| facts.max_mm.unwrap()[i] - facts.min_mm.unwrap()[i];
    assert!(size(0) > 5.0, "{facts:?}");
}

#[test]
fn a_cube() {
    let bytes = include_bytes!("files/cube.stl");
    match inspect("stl", &mut Cursor::new(&bytes[..]), &Limits::default()) {
        Ok(Inspected::Model(facts, Some(_))) => {
            assert_eq!(facts.size_mm, [6.0; 3]);
            assert_eq!(facts.volume_mm3, Some(216.0));
        }
        other => panic!("{other:?}"),
    }
}
