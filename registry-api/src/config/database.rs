//! Where the registry is kept, if in a PostgreSQL database.

use std::path::PathBuf;

use serde_json::Value;

use super::reader::{Reader, join};

/// Where a PostgreSQL database is.
#[derive(Clone, PartialEq, Eq)]
pub enum Database {
    /// `postgres://user:password@host:port/database?sslmode=verify-full`, as libpq has it.
    Url(String),
    /// In parts.
    Parts(DatabaseParts),
}

/// A PostgreSQL database in parts.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseParts {
    /// Host.
    pub host: String,
    /// Port.
    pub port: u16,
    /// User.
    pub user: String,
    /// Password.
    pub password: Option<String>,
    /// A file that holds it.
    pub password_file: Option<PathBuf>,
    /// Name of the database.
    pub database: String,
    /// `disable`, `prefer`, `require`, `verify-ca` or `verify-full`.
    pub ssl_mode: Option<String>,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Both may hold a password.
        match self {
            Self::Url(_) => f.write_str("Url"),
            Self::Parts(parts) => write!(f, "{}:{}/{}", parts.host, parts.port, parts.database),
        }
    }
}

impl Reader {
    pub(super) fn database(&mut self, value: &Value) -> Option<Database> {
        const MODES: [&str; 6] =
            ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];
        // Those without a meaning here are of ToolHive's pool and of its migrations.
        let known = [
            "host",
            "port",
            "user",
            "password",
            "passwordFile",
            "database",
            "sslMode",
            "migrationUser",
            "migrationPassword",
            "maxOpenConns",
            "maxIdleConns",
            "connMaxLifetime",
            "maxMetaSize",
        ];
        let path = "database";
        let object = self.object(value, path, &known)?;
        let host = self.required(object, "host", path).map(str::to_owned);
        let user = self.required(object, "user", path).map(str::to_owned);
        let database = self.required(object, "database", path).map(str::to_owned);
        let port = match object.get("port") {
            None => Some(5432),
            Some(port) => port.as_u64().and_then(|port| u16::try_from(port).ok()),
        };
        if port.is_none() {
            self.fault("database.port", "must be a number from 1 to 65535");
        }
        let mut text = |key: &str| {
            let value = object.get(key)?;
            self.text(value, &join(path, key)).map(str::to_owned)
        };
        let (password, password_file) = (text("password"), text("passwordFile"));
        let ssl_mode = text("sslMode");
        if ssl_mode.as_ref().is_some_and(|mode| !MODES.contains(&mode.as_str())) {
            self.fault("database.sslMode", format!("must be one of {}", MODES.join(", ")));
        }
        Some(Database::Parts(DatabaseParts {
            host: host?,
            port: port?,
            user: user?,
            password,
            password_file: password_file.map(PathBuf::from),
            database: database?,
            ssl_mode,
        }))
    }
}
