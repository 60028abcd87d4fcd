//! What a run found, for a terminal, for a browser, and as a picture.

pub mod html;
pub mod picture;
pub mod planted;
pub mod progress;
mod svg;
pub mod terminal;
pub mod timeline;
