//! The configuration of a node: [`Options`] as they were given, [`Settings`] as they hold.

mod advertise;
mod blanked;
mod choices;
mod file;
mod options;
mod settings;
mod tls;
mod units;

pub(crate) use self::file::read as read_file;
pub use self::{
    advertise::{Advertise, NoAdvertise},
    choices::{Demand, EnvoyHeaders, LegacyHeaders, LogFormat, RequireToken, TlsPort},
    file::ConfigError,
    options::{Options, Secret},
    settings::{Settings, SettingsError},
    tls::TlsSettingsError,
    units::{ByteCount, Span, UnitError},
};
