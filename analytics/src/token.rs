//! Who may ask what: bearer tokens, known here only by their SHA-256.
//!
//! A token is 256 random bits, so a plain hash keeps it: there is nothing to guess. Each has scopes, and says whose rows
//! it may see. Only tokens that see everybody may have the scope `query`: a free statement can name any person.

use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use uuid::Uuid;

/// What every token begins with, so that a secret scanner finds a lost one.
pub const PREFIX: &str = "biogate_";

/// What a token may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Free statements, over everybody.
    Query,
    /// Values and sessions of the persons that the token names.
    Persons,
    /// Numbers over everybody that name nobody.
    Aggregates,
    /// The gateways and whether their rows are complete.
    Fleet,
}

impl Scope {
    /// As it is written in the tokens file.
    pub fn name(self) -> &'static str {
        match self {
            Scope::Query => "query",
            Scope::Persons => "persons",
            Scope::Aggregates => "aggregates",
            Scope::Fleet => "fleet",
        }
    }
}

/// A usual set of scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// A person, or who looks after one: the values of the persons named
    Person,
    /// A ward: the values of the persons named, or of everybody
    Clinician,
    /// Who runs the hubs: gateways and completeness, nobody's values
    Operator,
    /// Everything, free statements included
    Analyst,
}

impl Role {
    /// Its scopes.
    pub fn scopes(self) -> &'static [Scope] {
        match self {
            Role::Person | Role::Clinician => &[Scope::Persons],
            Role::Operator => &[Scope::Fleet],
            Role::Analyst => &[Scope::Query, Scope::Persons, Scope::Aggregates, Scope::Fleet],
        }
    }
}

/// Whose rows a token may see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Users {
    /// `users = "all"`
    Everybody(All),
    /// `users = ["...", "..."]`
    These(Vec<Uuid>),
}

/// The word `all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum All {
    /// Everybody.
    All,
}

/// One entry of the tokens file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Who it was made for; the audit names it.
    pub name: String,
    /// SHA-256 of the token, in hexadecimal digits.
    pub sha256: String,
    /// What it may be used for.
    pub scopes: Vec<Scope>,
    /// Whose rows it may see; nobody's where it is left out.
    #[serde(default = "nobody")]
    pub users: Users,
    /// When it ends.
    pub expires: Timestamp,
}

fn nobody() -> Users {
    Users::These(Vec::new())
}

impl Entry {
    /// Whether it has this scope.
    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    /// Whether it may see this person's rows.
    pub fn sees(&self, user: Uuid) -> bool {
        self.has(Scope::Persons)
            && match &self.users {
                Users::Everybody(_) => true,
                Users::These(these) => these.contains(&user),
            }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    token: Vec<Entry>,
}

/// The tokens file as it was read.
#[derive(Debug, Default)]
pub struct Tokens {
    entries: Vec<([u8; 32], std::sync::Arc<Entry>)>,
}

/// Why a token is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// No such token.
    Unknown,
    /// Its end has come.
    Expired,
}

impl Tokens {
    /// Reads the file.
    pub fn load(path: &Path) -> Result<Tokens, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|why| format!("tokens_file {}: cannot be read: {why}", path.display()))?;
        Tokens::parse(&text).map_err(|why| format!("tokens_file {}: {why}", path.display()))
    }

    /// The file's text.
    pub fn parse(text: &str) -> Result<Tokens, String> {
        // The message without the excerpt that Display adds: it could show a hash.
        let file: File = toml::from_str(text).map_err(|why| why.message().to_owned())?;
        let mut entries: Vec<([u8; 32], std::sync::Arc<Entry>)> = Vec::new();
        for entry in file.token {
            let mut hash = [0; 32];
            hex::decode_to_slice(&entry.sha256, &mut hash).map_err(|_| {
                format!("token {:?}: sha256 is not 64 hexadecimal digits; `token new` prints it", entry.name)
            })?;
            if entry.has(Scope::Query) && entry.users != Users::Everybody(All::All) {
                return Err(format!(
                    "token {:?}: the scope query can ask for everybody's rows; write users = \"all\", or leave the scope out",
                    entry.name
                ));
            }
            if entries.iter().any(|(_, known)| known.name == entry.name) {
                return Err(format!("token {:?} is there twice; write another name", entry.name));
            }
            entries.push((hash, std::sync::Arc::new(entry)));
        }
        Ok(Tokens { entries })
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry of a token. Every entry is compared, each in constant time.
    pub fn find(&self, token: &str, now: Timestamp) -> Result<std::sync::Arc<Entry>, Refused> {
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let mut found = u32::MAX;
        for (index, (known, _)) in (0u32..).zip(&self.entries) {
            let same: Choice = known.as_slice().ct_eq(&hash);
            found.conditional_assign(&index, same);
        }
        let entry = self.entries.get(found as usize).map(|(_, entry)| entry).ok_or(Refused::Unknown)?;
        match entry.expires > now {
            true => Ok(entry.clone()),
            false => Err(Refused::Expired),
        }
    }
}

/// A new token. It is shown once and kept nowhere.
pub fn new() -> Result<String, String> {
    let mut secret = [0u8; 32];
    getrandom::fill(&mut secret).map_err(|why| format!("the system gives no random bytes: {why}"))?;
    Ok(format!("{PREFIX}{}", hex::encode(secret)))
}

/// How a token stands in the file.
pub fn hash(token: &str) -> String {
    hex::encode(Sha256::digest(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(scopes: &str, users: &str) -> String {
        let hash = hash("biogate_secret");
        format!(
            "[[token]]\nname = \"a\"\nsha256 = \"{hash}\"\nscopes = [{scopes}]\nusers = {users}\nexpires = \"2027-01-01T00:00:00Z\"\n"
        )
    }

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    #[test]
    fn a_token_is_found_by_its_hash_until_its_end() {
        let tokens = Tokens::parse(&entry("\"persons\"", "[]")).unwrap();
        assert_eq!(tokens.find("biogate_secret", at("2026-12-31T23:59:59Z")).unwrap().name, "a");
        assert_eq!(tokens.find("biogate_secret", at("2027-01-01T00:00:00Z")).unwrap_err(), Refused::Expired);
        assert_eq!(tokens.find("biogate_secreT", at("2026-12-01T00:00:00Z")).unwrap_err(), Refused::Unknown);
        assert_eq!(Tokens::default().find("", at("2026-12-01T00:00:00Z")).unwrap_err(), Refused::Unknown);
    }

    #[test]
    fn a_token_of_some_persons_sees_only_these() {
        let (anna, ben) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let parse = |users: &str| Tokens::parse(&entry("\"persons\"", users)).unwrap().entries.remove(0).1;
        let own = parse(&format!("[\"{anna}\"]"));
        assert!(own.sees(anna) && !own.sees(ben));
        assert!(parse("\"all\"").sees(ben));
        assert!(!parse("[]").sees(anna));
    }

    #[test]
    fn free_statements_are_only_for_those_who_see_everybody() {
        let refused = Tokens::parse(&entry("\"query\"", "[\"00000000-0000-0000-0000-000000000001\"]")).unwrap_err();
        assert!(refused.contains("users = \"all\""), "{refused}");
        assert!(Tokens::parse(&entry("\"query\"", "\"all\"")).is_ok());
    }

    #[test]
    fn what_is_wrong_in_the_file_is_named() {
        let text = entry("\"persons\"", "[]");
        for (wrong, said) in [
            (text.replace("name =", "nmae ="), "nmae"),
            (text.replace("persons", "person"), "person"),
            (text.replace("sha256 = \"", "sha256 = \"x"), "64 hexadecimal"),
            (format!("{text}{text}"), "twice"),
        ] {
            let error = Tokens::parse(&wrong).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn two_new_tokens_differ() {
        let (one, other) = (new().unwrap(), new().unwrap());
        assert!(one != other && one.len() == PREFIX.len() + 64);
    }
}
