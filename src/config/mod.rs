//! The configuration of a node: [`Options`] as they were given, [`Settings`] as they hold.

mod file;
mod options;
mod settings;
mod units;

pub(crate) use self::file::read as read_file;
pub use self::{
    file::ConfigError,
    options::{Options, Secret},
    settings::{EnvoyHeaders, LegacyHeaders, LogFormat, Settings, SettingsError},
    units::{ByteCount, Span, UnitError},
};
