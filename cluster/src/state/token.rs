//! Tokens: what they may do, and what is known of them. The secret itself is known to who holds the token and to nobody else: only
//! a hash of it is kept.
//!
//! A secret has 256 random bits, so nobody finds it by trying, however fast the hash is: a slow one, as passwords need, would
//! only cost each check its time.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::fabric;

/// Tokens of a cluster; one more is refused.
pub const MAX_TOKENS: usize = 1000;
/// Bytes of a token's name.
pub const MAX_TOKEN_NAME_BYTES: usize = 64;
/// Domains that a token may be limited to.
pub const MAX_TOKEN_DOMAINS: usize = 64;
/// Bytes of what is presented as a token; more is none.
const MAX_PRESENTED_BYTES: usize = 512;

const PREFIX: &str = "tg_";
const ID_DIGITS: usize = 16;
const SECRET_DIGITS: usize = 64;
const TOKEN_CONTEXT: &str = "tidegate 2026-11 access token";
const ADMIN_CONTEXT: &str = "tidegate 2026-11 admin token";

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Ask checks, and give units back.
    Check,
    /// Look at rules, cluster, metrics and audit.
    Read,
    /// Drain and remove nodes, reset buckets; and what `Read` may.
    Operate,
    /// All: change the rules, make and revoke tokens.
    Admin,
}

impl Role {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Check, Self::Read, Self::Operate, Self::Admin];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }

    /// The role of a word.
    pub fn from_name(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == word)
    }
}

/// Several roles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roles(u8);

impl Roles {
    /// Whether they suffice for what needs this role.
    pub fn allow(self, needed: Role) -> bool {
        let has = |role: Role| self.0 & (1 << role as u8) != 0;
        has(needed) || has(Role::Admin) || needed == Role::Read && has(Role::Operate)
    }

    /// Each of them, as it was given.
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |role| self.0 & (1 << *role as u8) != 0)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        Self(roles.into_iter().fold(0, |all, role| all | 1 << role as u8))
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.iter().map(Role::as_str).collect();
        f.write_str(&words.join(", "))
    }
}

/// A number that tells tokens apart. It is no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TokenId(u64);

impl TokenId {
    /// As [`TokenId`] is written.
    pub fn parse(text: &str) -> Option<Self> {
        is_hex(text, ID_DIGITS).then(|| u64::from_str_radix(text, 16).ok())?.map(Self)
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The hash of a secret. Comparing takes the same time wherever two differ.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct SecretHash([u8; 32]);

impl SecretHash {
    fn of(context: &str, secret: &[u8]) -> Self {
        Self(blake3::derive_key(context, secret))
    }
}

impl PartialEq for SecretHash {
    fn eq(&self, other: &Self) -> bool {
        blake3::Hash::from_bytes(self.0) == blake3::Hash::from_bytes(other.0)
    }
}

impl Eq for SecretHash {}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

/// What is known of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// What people call it: one of each name.
    pub name: String,
    /// Of its text.
    pub(crate) hash: SecretHash,
    /// What it may do.
    pub roles: Roles,
    /// The domains that it may ask about; none: all of them.
    pub domains: Vec<String>,
    /// When it was made, by the clock of the node that was asked, in Unix milliseconds.
    pub created_ms: u64,
    /// From when on it is none, by the clock of the node that it is presented to; `None`: it does not expire.
    pub expires_ms: Option<u64>,
    /// Who made it.
    pub created_by: String,
}

impl Token {
    /// One whose bytes are known.
    #[cfg(test)]
    pub(crate) fn golden() -> Self {
        Self {
            name: "ci".to_owned(),
            hash: SecretHash([0x7a; 32]),
            roles: [Role::Check, Role::Admin].into_iter().collect(),
            domains: vec!["api".to_owned()],
            created_ms: 5,
            expires_ms: Some(6),
            created_by: "ada".to_owned(),
        }
    }

    /// Whether it is over.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_ms.is_some_and(|end| now_ms >= end)
    }
}

/// The text of a new token, with its number and hash. The text is shown once.
pub(crate) struct MintedToken {
    pub(crate) id: TokenId,
    pub(crate) text: String,
    pub(crate) hash: SecretHash,
}

impl MintedToken {
    pub(crate) fn new() -> Self {
        let id = TokenId(u64::from_be_bytes(fabric::random_bytes()));
        let secret = [0; 2].map(|_: u8| u128::from_be_bytes(fabric::random_bytes()));
        let text = format!("{PREFIX}{id}_{:032x}{:032x}", secret[0], secret[1]);
        let hash = SecretHash::of(TOKEN_CONTEXT, text.as_bytes());
        Self { id, text, hash }
    }
}

/// A secret that the operator of a node gives to it alone: it holds at this node, whatever is replicated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminSecret(SecretHash);

/// Shortest secret of an operator, in characters.
const MIN_ADMIN_TOKEN_CHARS: usize = 32;

/// Why a text is no such secret.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "the admin token has {found} characters, which must be {MIN_ADMIN_TOKEN_CHARS} to {MAX_PRESENTED_BYTES}, visible ones of ASCII, and \
     random; `openssl rand -hex 32` makes a good one"
)]
pub struct BadAdminToken {
    found: usize,
}

impl AdminSecret {
    /// Takes a secret as text; white space around it does not count.
    ///
    /// # Errors
    /// When it is too short, too long, or cannot stand in a header.
    pub fn parse(text: &str) -> Result<Self, BadAdminToken> {
        let text = text.trim();
        let found = text.chars().count();
        let fits = (MIN_ADMIN_TOKEN_CHARS..=MAX_PRESENTED_BYTES).contains(&found);
        if !fits || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(BadAdminToken { found });
        }
        Ok(Self(SecretHash::of(ADMIN_CONTEXT, text.as_bytes())))
    }

    /// Whether this is it.
    pub fn is(&self, presented: &[u8]) -> bool {
        presented.len() <= MAX_PRESENTED_BYTES && self.0 == SecretHash::of(ADMIN_CONTEXT, presented)
    }
}

/// All tokens of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    by_id: BTreeMap<TokenId, Arc<Token>>,
    /// Whether there ever was one: from then on administration needs one, also when all are gone or have expired.
    is_guarded: bool,
    /// The entry of the log that changed them last.
    version: u64,
}

/// Why a change of the tokens, or another one that somebody asked for, was not made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ActError {
    /// Who asks may not.
    #[error("{0}")]
    NotAllowed(String),
    /// There is no such token.
    #[error("there is no such token; it may have been revoked")]
    NoSuchToken,
    /// The name is taken.
    #[error("there is a token of the name {0:?}; revoke it, or give the new one another name")]
    NameTaken(String),
    /// There is no room.
    #[error("there are {MAX_TOKENS} tokens, and no room for more: revoke some")]
    Full,
    /// It is about to lock everybody out.
    #[error(
        "no token with the role admin would be left: make one first, or do it with the admin token of a node (--admin-token-file)"
    )]
    NoAdminLeft,
    /// Another token is shown by that certificate.
    #[error("the certificate name {0:?} has a token already; revoke that first")]
    CertificateTaken(String),
}

impl Tokens {
    /// Whether administration needs a token.
    pub fn is_guarded(&self) -> bool {
        self.is_guarded
    }

    /// Which change they are of: two of one version are the same.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (TokenId, &Arc<Token>)> {
        self.by_id.iter().map(|(id, token)| (*id, token))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The token of that number.
    pub fn get(&self, id: TokenId) -> Option<&Arc<Token>> {
        self.by_id.get(&id)
    }

    /// The token that is meant by its number or its name.
    pub fn find(&self, text: &str) -> Option<TokenId> {
        let by_id = TokenId::parse(text).filter(|id| self.by_id.contains_key(id));
        by_id.or_else(|| self.iter().find(|(_, token)| token.name == text).map(|(id, _)| id))
    }

    /// The token whose text this is.
    pub fn look_up(&self, presented: &[u8]) -> Option<(TokenId, &Arc<Token>)> {
        let id = Self::id_in(presented)?;
        let token = self.by_id.get(&id)?;
        (token.hash == SecretHash::of(TOKEN_CONTEXT, presented)).then_some((id, token))
    }

    /// Whether the text is of the form of a token's, whether there is such a one or not.
    pub fn has_form(presented: &[u8]) -> bool {
        Self::id_in(presented).is_some()
    }

    fn id_in(presented: &[u8]) -> Option<TokenId> {
        let text = std::str::from_utf8(presented).ok()?.strip_prefix(PREFIX)?;
        let (id, secret) = text.split_once('_')?;
        is_hex(secret, SECRET_DIGITS).then(|| TokenId::parse(id))?
    }

    /// Whether one that has not expired would let somebody administer. By the time in the entry, which is the same at all nodes.
    fn has_admin_beside(&self, without: Option<TokenId>, now_ms: u64) -> bool {
        let lets_in = |token: &Token| token.roles.allow(Role::Admin) && !token.is_expired(now_ms);
        self.iter().any(|(id, token)| Some(id) != without && lets_in(token))
    }

    /// Takes one in. `may_lock_out`: who asks gets in without one.
    pub(super) fn add(
        &mut self,
        index: u64,
        now_ms: u64,
        id: TokenId,
        token: Token,
        may_lock_out: bool,
    ) -> Result<(), ActError> {
        if self.by_id.contains_key(&id) || self.iter().any(|(_, known)| known.name == token.name) {
            return Err(ActError::NameTaken(token.name));
        }
        if self.by_id.len() >= MAX_TOKENS {
            return Err(ActError::Full);
        }
        if !may_lock_out && !token.roles.allow(Role::Admin) && !self.has_admin_beside(None, now_ms) {
            return Err(ActError::NoAdminLeft);
        }
        self.by_id.insert(id, Arc::new(token));
        (self.is_guarded, self.version) = (true, index);
        Ok(())
    }

    /// Takes one out.
    pub(super) fn remove(
        &mut self,
        index: u64,
        now_ms: u64,
        id: TokenId,
        may_lock_out: bool,
    ) -> Result<(), ActError> {
        if !self.by_id.contains_key(&id) {
            return Err(ActError::NoSuchToken);
        }
        if !may_lock_out && !self.has_admin_beside(Some(id), now_ms) {
            return Err(ActError::NoAdminLeft);
        }
        self.by_id.remove(&id);
        self.version = index;
        Ok(())
    }
}
