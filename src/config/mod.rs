//! The configuration of a node: [`Options`] as they were given, [`Settings`] as they hold.

mod choices;
mod file;
mod options;
mod settings;
mod units;

pub(crate) use self::file::read as read_file;
pub use self::{
    choices::{EnvoyHeaders, LegacyHeaders, LogFormat, RequireToken},
    file::ConfigError,
    options::{Options, Secret},
    settings::{Settings, SettingsError},
    units::{ByteCount, Span, UnitError},
};
