//! A picture of a model: a plain z-buffer, seen from the front right above, lit from the viewer's left.

use crate::facts::Picture;
use crate::mesh::Triangle;
use crate::Error;

#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub min: [f32; 3],
    pub max: [f32; 3],
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            min: [f32::INFINITY; 3],
            max: [f32::NEG_INFINITY; 3],
        }
    }
}

impl Bounds {
    pub fn include(&mut self, v: &[f32; 3]) {
        self.min = std::array::from_fn(|i| self.min[i].min(v[i]));
        self.max = std::array::from_fn(|i| self.max[i].max(v[i]));
    }
}

const SIZE: usize = 320;
/// Drawn twice as large and shrunk, so that edges are soft.
const FINE: usize = SIZE * 2;
/// Pixels that are looked at in all; an honest model needs a hundredth of it.
const MOST_WORK: u64 = 300_000_000;
const COLOR: [f32; 3] = [70.0, 130.0, 180.0];

/// Right, up and towards the viewer, for a z-up model.
const VIEW: [[f32; 3]; 3] = [
    [0.819_152, 0.573_576, 0.0],
    [-0.286_788, 0.409_576, 0.866_025],
    [0.496_732, -0.709_406, 0.5],
];
const LIGHT: [f32; 3] = [0.267_261, -0.534_522, 0.801_784];

fn dot(a: &[f32; 3], b: &[f32; 3]) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

/// Draw what `triangles` hands over. Memory is the picture, whatever the model.
pub fn render(
    bounds: &Bounds,
    triangles: impl FnOnce(&mut dyn FnMut(&Triangle)) -> Result<(), Error>,
) -> Result<Picture, Error> {
    let middle: [f32; 3] = std::array::from_fn(|i| (bounds.min[i] + bounds.max[i]) / 2.0);
    // The largest reach of the eight corners in the plane of the picture decides the scale.
    let mut reach = f32::MIN_POSITIVE;
    for n in 0..8 {
        let corner: [f32; 3] = std::array::from_fn(|i| {
            let side = if n >> i & 1 == 0 {
                bounds.min[i]
            } else {
                bounds.max[i]
            };
            side - middle[i]
        });
        reach = reach
            .max(dot(&VIEW[0], &corner).abs())
            .max(dot(&VIEW[1], &corner).abs());
    }
    let scale = FINE as f32 * 0.46 / reach;
    let mut work = MOST_WORK;
    let mut depth = vec![f32::NEG_INFINITY; FINE * FINE];
    let mut shade = vec![0u8; FINE * FINE];
    triangles(&mut |t| {
        let seen = t.map(|v| {
            let v: [f32; 3] = std::array::from_fn(|i| v[i] - middle[i]);
            let half = FINE as f32 / 2.0;
            [
                half + dot(&VIEW[0], &v) * scale,
                half - dot(&VIEW[1], &v) * scale,
                dot(&VIEW[2], &v),
            ]
        });
        let u: [f32; 3] = std::array::from_fn(|i| t[1][i] - t[0][i]);
        let w: [f32; 3] = std::array::from_fn(|i| t[2][i] - t[0][i]);
        let normal = [
            u[1] * w[2] - u[2] * w[1],
            u[2] * w[0] - u[0] * w[2],
            u[0] * w[1] - u[1] * w[0],
        ];
        let length = dot(&normal, &normal).sqrt();
        if length > 0.0 {
            // Both sides are lit: a model that is inside out still has a face.
            let light = (dot(&normal, &LIGHT) / length).abs();
            fill(
                &seen,
                (60.0 + 195.0 * light) as u8,
                &mut depth,
                &mut shade,
                &mut work,
            );
        }
    })?;
    encode(&shade)
}

fn fill(t: &Triangle, light: u8, depth: &mut [f32], shade: &mut [u8], work: &mut u64) {
    let [a, b, c] = t;
    let area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);
    if area == 0.0 || !area.is_finite() {
        return;
    }
    let span = |axis: usize| {
        let low = a[axis].min(b[axis]).min(c[axis]).max(0.0);
        let high = a[axis].max(b[axis]).max(c[axis]).min((FINE - 1) as f32);
        (low as usize, high as usize)
    };
    let ((left, right), (top, bottom)) = (span(0), span(1));
    // A file of nothing but huge triangles would draw for hours.
    let cost = ((right + 1).saturating_sub(left) * (bottom + 1).saturating_sub(top)) as u64;
    match work.checked_sub(cost) {
        Some(left) => *work = left,
        None => return,
    }
    for y in top..=bottom {
        for x in left..=right {
            let p = [x as f32 + 0.5, y as f32 + 0.5];
            let side = |m: &[f32; 3], n: &[f32; 3]| {
                ((n[0] - m[0]) * (p[1] - m[1]) - (n[1] - m[1]) * (p[0] - m[0])) / area
            };
            let (wa, wb, wc) = (side(b, c), side(c, a), side(a, b));
            if wa >= 0.0 && wb >= 0.0 && wc >= 0.0 {
                let z = wa * a[2] + wb * b[2] + wc * c[2];
                let at = y * FINE + x;
                if z > depth[at] {
                    depth[at] = z;
                    shade[at] = light;
                }
            }
        }
    }
}

fn encode(shade: &[u8]) -> Result<Picture, Error> {
    let mut pixels = Vec::with_capacity(SIZE * SIZE * 4);
    for y in 0..SIZE {
        for x in 0..SIZE {
            let four = [(0, 0), (0, 1), (1, 0), (1, 1)]
                .map(|(dy, dx)| shade[(y * 2 + dy) * FINE + x * 2 + dx]);
            let lit: Vec<f32> = four
                .iter()
                .filter(|s| **s > 0)
                .map(|s| f32::from(*s))
                .collect();
            let mean = lit.iter().sum::<f32>() / lit.len().max(1) as f32 / 255.0;
            pixels.extend(COLOR.map(|c| (c * mean * 1.3).min(255.0) as u8));
            pixels.push((lit.len() * 255 / 4) as u8);
        }
    }
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, SIZE as u32, SIZE as u32);
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_depth(png::BitDepth::Eight);
    let written = encoder
        .write_header()
        .and_then(|mut writer| writer.write_image_data(&pixels));
    written.map_err(|e| Error::bad(format!("the picture could not be written: {e}")))?;
    Ok(Picture {
        width: SIZE as u32,
        height: SIZE as u32,
        format: "png",
        bytes,
    })
}
