use std::io::Cursor;

use super::*;

pub(crate) fn cube(size: f32) -> Vec<Triangle> {
    let p = |n: usize| -> [f32; 3] {
        std::array::from_fn(|i| if n >> i & 1 == 1 { size } else { 0.0 })
    };
    [
        [0, 2, 3],
        [0, 3, 1],
        [4, 5, 7],
        [4, 7, 6],
        [0, 1, 5],
        [0, 5, 4],
        [2, 6, 7],
        [2, 7, 3],
        [0, 4, 6],
        [0, 6, 2],
        [1, 3, 7],
        [1, 7, 5],
    ]
    .map(|t| t.map(p))
    .to_vec()
}

fn binary(triangles: &[Triangle]) -> Cursor<Vec<u8>> {
    let mut bytes = vec![0u8; 80];
    bytes.extend((triangles.len() as u32).to_le_bytes());
    for t in triangles {
        bytes.extend([0u8; 12]);
        t.iter()
            .flatten()
            .for_each(|v| bytes.extend(v.to_le_bytes()));
        bytes.extend([0u8; 2]);
    }
    Cursor::new(bytes)
}

#[test]
fn a_cube_is_a_cube_in_every_format() {
    let triangles = cube(20.0);
    let (facts, picture) = inspect_stl(&mut binary(&triangles), &Limits::default()).unwrap();
    assert_eq!(facts.size_mm, [20.0; 3]);
    assert_eq!((facts.volume_mm3, facts.area_mm2), (Some(8000.0), 2400.0));
    assert!(facts.watertight && !facts.inside_out);
    assert!(picture.bytes.starts_with(b"\x89PNG") && picture.bytes.len() > 500);

    let mut ascii = String::from("solid cube\n");
    let mut obj = String::new();
    for (n, t) in triangles.iter().enumerate() {
        ascii.push_str("facet normal 0 0 0\n outer loop\n");
        for v in t {
            ascii.push_str(&format!("  vertex {} {:e} {}\n", v[0], v[1], v[2]));
            obj.push_str(&format!("v {} {} {}\n", v[0], v[1], v[2]));
        }
        ascii.push_str(" endloop\nendfacet\n");
        obj.push_str(&format!("f {}/1/1 {} -1\n", n * 3 + 1, n * 3 + 2));
    }
    ascii.push_str("endsolid\n");
    let (same, _) = inspect_stl(&mut Cursor::new(ascii.into_bytes()), &Limits::default()).unwrap();
    assert_eq!(same, facts);
    let (same, _) = inspect_obj(&mut Cursor::new(obj.into_bytes()), &Limits::default()).unwrap();
    assert_eq!(same, facts);
}

#[test]
fn holes_and_wrong_sides_are_seen() {
    let mut triangles = cube(10.0);
    triangles.pop();
    let (facts, _) = inspect_stl(&mut binary(&triangles), &Limits::default()).unwrap();
    assert!(!facts.watertight && facts.volume_mm3.is_none());
    let flipped: Vec<Triangle> = cube(10.0).into_iter().map(|[a, b, c]| [a, c, b]).collect();
    let (facts, _) = inspect_stl(&mut binary(&flipped), &Limits::default()).unwrap();
    assert!(facts.watertight && facts.inside_out && facts.volume_mm3 == Some(1000.0));
    let mut one_flipped = cube(10.0);
    one_flipped[3].swap(0, 1);
    assert!(
        !inspect_stl(&mut binary(&one_flipped), &Limits::default())
            .unwrap()
            .0
            .watertight
    );
}

#[test]
fn lies_about_the_size_are_errors() {
    let mut short = binary(&cube(1.0)).into_inner();
    short[80..84].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(inspect_stl(&mut Cursor::new(short), &Limits::default()).is_err());
    let mut nan = cube(1.0);
    nan[0][0][0] = f32::NAN;
    assert!(inspect_stl(&mut binary(&nan), &Limits::default()).is_err());
    let few = Limits {
        triangles: 11,
        ..Limits::default()
    };
    assert!(matches!(
        inspect_stl(&mut binary(&cube(1.0)), &few),
        Err(Error::TooMuch(_))
    ));
    assert!(inspect_obj(
        &mut Cursor::new(b"v 0 0 0\nf 1 2 3\n".to_vec()),
        &Limits::default()
    )
    .is_err());
}
