//! `tidegate cert`: certificates of one's own authority.

use std::path::PathBuf;

use clap::{Args, Subcommand, value_parser};
use tidegate_cluster::is_valid_name;

use super::outcome::{DONE, FAILED, Failure};
use crate::{
    authority::{self, Authority, AuthorityError, Holder, Written},
    terminal::print,
};

/// Ten years: who must trust an authority has to be told of a new one.
const AUTHORITY_DAYS: u32 = 3650;
/// A node warns of it two weeks before its end, and takes a new one without a restart.
const HOLDER_DAYS: u32 = 365;

#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "\
A cluster of three nodes, made where the authority is kept, which is on none of them:
  tidegate cert ca --dir ca
  tidegate cert node --dir ca --name n1 --host n1.example.com --host 10.0.0.1
  tidegate cert node --dir ca --name n2 --host n2.example.com --host 10.0.0.2
  tidegate cert node --dir ca --name n3 --host n3.example.com --host 10.0.0.3
  tidegate cert client --dir ca --name deploy

On n1, with ca.crt, n1.crt and n1.key copied there:
  tidegate serve --name n1 --tls-cert n1.crt --tls-key n1.key \\
    --peer-tls-cert n1.crt --peer-tls-key n1.key --peer-tls-ca ca.crt ...

A certificate is made anew by the same command in another directory (--out); nodes take a changed file without a restart."
)]
pub(super) struct CertArgs {
    #[command(subcommand)]
    command: CertCommand,
}

#[derive(Debug, Subcommand)]
enum CertCommand {
    /// Make an authority: ca.crt, which all get, and ca.key, which nobody gets
    Ca(CaArgs),
    /// Make a certificate for a node: for its clients and its peers
    Node(NodeCertArgs),
    /// Make a certificate for a client
    Client(ClientCertArgs),
}

#[derive(Debug, Args)]
struct CaArgs {
    /// Directory for ca.crt and ca.key
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,

    /// Name of the authority [default: Tidegate CA and eight random digits]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// For how many days it holds
    #[arg(long, value_name = "N", default_value_t = AUTHORITY_DAYS, value_parser = value_parser!(u32).range(1..=36_500))]
    days: u32,
}

#[derive(Debug, Args)]
struct HolderArgs {
    /// Directory of the authority: ca.crt and ca.key
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,

    /// Directory for the new files [default: --dir]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// For how many days the certificate holds
    #[arg(long, value_name = "N", default_value_t = HOLDER_DAYS, value_parser = value_parser!(u32).range(1..=36_500))]
    days: u32,
}

#[derive(Debug, Args)]
struct NodeCertArgs {
    /// Name of the node, as in `tidegate serve --name`: its peers look for it in the certificate
    #[arg(long, value_name = "NAME", value_parser = name)]
    name: String,

    /// Names and addresses by which clients ask the node, beside its name, localhost, 127.0.0.1 and ::1; may be given several times
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    host: Vec<String>,

    #[command(flatten)]
    holder: HolderArgs,
}

#[derive(Debug, Args)]
struct ClientCertArgs {
    /// Name of the client: the common name of its certificate
    #[arg(long, value_name = "NAME", value_parser = name)]
    name: String,

    #[command(flatten)]
    holder: HolderArgs,
}

impl CertArgs {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let (written, next) = match self.command {
            CertCommand::Ca(args) => (
                authority::found(&args.dir, &args.name.unwrap_or_else(new_name), args.days).map_err(failed)?,
                "give ca.crt to whoever is to believe its certificates (--tls-client-ca, --peer-tls-ca, --ca-file); keep ca.key where \
                 no node runs: who has it is any node and any client"
                    .to_owned(),
            ),
            CertCommand::Node(NodeCertArgs { name, host, holder }) => (
                holder.issue(&name, Holder::Node { hosts: &host }).map_err(failed)?,
                format!(
                    "copy both to the node, the key readable by its user only: --tls-cert {name}.crt --tls-key {name}.key for clients, \
                     --peer-tls-cert {name}.crt --peer-tls-key {name}.key --peer-tls-ca ca.crt for peers"
                ),
            ),
            CertCommand::Client(ClientCertArgs { name, holder }) => (
                holder.issue(&name, Holder::Client).map_err(failed)?,
                format!(
                    "tidegate --client-cert {name}.crt --client-key {name}.key, curl --cert {name}.crt --key {name}.key; nodes ask for it \
                     with --tls-client-ca ca.crt"
                ),
            ),
        };
        let Written { certificate, key } = written;
        print(&format!("{}\n{}\n{next}", certificate.display(), key.display()));
        Ok(DONE)
    }
}

impl HolderArgs {
    fn issue(&self, name: &str, holder: Holder<'_>) -> Result<Written, AuthorityError> {
        let out = self.out.as_ref().unwrap_or(&self.dir);
        Authority::open(&self.dir)?.issue(out, name, holder, self.days)
    }
}

/// Who trusts several authorities can tell them apart.
fn new_name() -> String {
    let mut bytes = [0_u8; 4];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    format!("Tidegate CA {:08x}", u32::from_be_bytes(bytes))
}

fn failed(fault: AuthorityError) -> Failure {
    Failure::of(FAILED, fault)
}

fn name(text: &str) -> Result<String, String> {
    if is_valid_name(text) {
        return Ok(text.to_owned());
    }
    Err("a name has 1 to 64 letters, digits, '.', '_' and '-'".to_owned())
}
