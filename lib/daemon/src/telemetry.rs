//! Logs: structured lines on standard error, filtered by `KEELSON_LOG` or the configuration.

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people and the journal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Installs the process's subscriber. `filter` is a tracing filter such as `info,keelson_kubelet=debug`; the
/// environment variable `KEELSON_LOG` wins over it. A second call does nothing.
pub fn init(format: LogFormat, filter: &str) {
    let filter = std::env::var("KEELSON_LOG").unwrap_or_else(|_| filter.to_owned());
    let filter = EnvFilter::try_new(&filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let done = match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    // Already installed (tests): the first one stays.
    drop(done);
}
