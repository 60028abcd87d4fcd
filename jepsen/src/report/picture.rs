//! The timeline as a PNG.

use std::sync::Arc;

use resvg::{
    tiny_skia::{Color, Pixmap, Transform},
    usvg::{Options, Tree, fontdb::Database},
};

use super::timeline;
use crate::{judge::Judgement, record::Record};

/// Twice as many pixels as the page has points: for screens that show them.
const SCALE: f32 = 2.0;

/// Draws the timeline.
///
/// # Errors
/// When the drawing is not what it should be: a bug here.
pub fn png(record: &Record, judgement: &Judgement) -> Result<Vec<u8>, String> {
    let mut fonts = Database::new();
    fonts.load_font_data(dejavu::sans::regular().to_vec());
    fonts.load_font_data(dejavu::sans::bold().to_vec());
    fonts.set_sans_serif_family("DejaVu Sans");
    let options =
        Options { fontdb: Arc::new(fonts), font_family: "DejaVu Sans".to_owned(), ..Options::default() };
    let tree =
        Tree::from_str(&timeline::svg(record, judgement), &options).map_err(|error| error.to_string())?;
    let size = tree.size();
    let (width, height) = ((size.width() * SCALE) as u32, (size.height() * SCALE) as u32);
    let mut pixels = Pixmap::new(width, height).ok_or("the picture has no size")?;
    pixels.fill(Color::WHITE);
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
    pixels.encode_png().map_err(|error| error.to_string())
}
