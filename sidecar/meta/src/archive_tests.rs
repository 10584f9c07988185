use std::io::{Cursor, Write};

use zip::write::SimpleFileOptions;
use zip::ZipWriter;

use super::*;

fn archive(entries: &[(&str, &[u8])]) -> Cursor<Vec<u8>> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap()
}

const GCODE: &[u8] =
    b"; BambuStudio 02.00.01.50\n; total estimated time: 1m 1s\nG1 X1 Y2 Z0.2 E1\n";
const INFO: &[u8] = br##"<?xml version="1.0"?><config><plate><metadata key="index" value="2"/><metadata key="prediction" value="600"/>
 <metadata key="weight" value="12.5"/><metadata key="printer_model_id" value="C12"/><metadata key="nozzle_diameters" value="0.4"/><metadata key="support_used" value="true"/>
 <filament id="1" type="PLA" color="#FF8000" used_m="3.5" used_g="10.5"/><filament id="3" type="PETG" color="#00ff00FF" used_m="0.5" used_g="2"/></plate></config>"##;

#[test]
fn a_sliced_plate() {
    let facts = read_sliced_3mf(
        &mut archive(&[
            ("Metadata/plate_2.gcode", GCODE),
            ("Metadata/slice_info.config", INFO),
            (
                "Metadata/project_settings.config",
                br#"{"layer_height":"0.2"}"#,
            ),
        ]),
        &Limits::default(),
    )
    .unwrap();
    assert_eq!(
        (facts.print_seconds, facts.grams, facts.plates),
        (Some(600.0), Some(12.5), Some(1))
    );
    assert_eq!(facts.plate, Some(2), "the number it has in its file");
    assert_eq!(facts.tools.len(), 2);
    assert_eq!(
        (facts.tools[1].tool, facts.tools[1].color.as_deref()),
        (2, Some("#00FF00"))
    );
    assert_eq!(
        (
            facts.printer_model.as_deref(),
            facts.nozzle_mm,
            facts.layer_height_mm
        ),
        (Some("C12"), Some(0.4), Some(0.2))
    );
    assert_eq!(facts.filament_mm, Some(4000.0));
}

#[test]
fn a_model_with_parts_at_their_places() {
    let mut mesh = String::from("<mesh><vertices>");
    let cube = crate::mesh::tests::cube(10.0);
    for v in cube.iter().flatten() {
        mesh.push_str(&format!(
            "<vertex x=\"{}\" y=\"{}\" z=\"{}\"/>",
            v[0], v[1], v[2]
        ));
    }
    mesh.push_str("</vertices><triangles>");
    for n in 0..cube.len() {
        mesh.push_str(&format!(
            "<triangle v1=\"{}\" v2=\"{}\" v3=\"{}\"/>",
            n * 3,
            n * 3 + 1,
            n * 3 + 2
        ));
    }
    mesh.push_str("</triangles></mesh>");
    let model = format!(
        "<model unit=\"centimeter\"><resources><object id=\"1\">{mesh}</object><object id=\"2\"><components><component objectid=\"1\"/>\
         <component objectid=\"1\" transform=\"1 0 0 0 1 0 0 0 1 20 0 0\"/></components></object></resources><build><item objectid=\"2\" transform=\"2 0 0 0 1 0 0 0 1 5 0 0\"/></build></model>"
    );
    let (facts, picture) = read_model_3mf(
        &mut archive(&[("3D/3dmodel.model", model.as_bytes())]),
        &Limits::default(),
    )
    .unwrap();
    assert_eq!(facts.size_mm, [600.0, 100.0, 100.0]);
    assert_eq!(
        (facts.volume_mm3, facts.watertight),
        (Some(4_000_000.0), true)
    );
    assert_eq!(facts.min_mm[0], 50.0);
    assert_eq!(picture.format, "png");
}

#[test]
fn an_object_of_itself_ends() {
    let model = br#"<model><resources><object id="1"><components><component objectid="1"/></components></object></resources><build><item objectid="1"/></build></model>"#;
    let answer = read_model_3mf(
        &mut archive(&[("3D/3dmodel.model", model)]),
        &Limits::default(),
    );
    assert!(matches!(answer, Err(Error::TooMuch(_))));
}

#[test]
fn bombs_do_not_go_off() {
    let zeros = vec![b' '; 40 << 20];
    let bomb = archive(&[("Metadata/plate_1.gcode", &zeros)]);
    assert!(bomb.get_ref().len() < 100_000);
    assert!(read_sliced_3mf(&mut { bomb }, &Limits::default()).is_err());
    let many: Vec<String> = (0..3000).map(|n| format!("f{n}")).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|n| (n.as_str(), &b""[..])).collect();
    assert!(matches!(
        read_sliced_3mf(&mut archive(&many), &Limits::default()),
        Err(Error::TooMuch(_))
    ));
}
