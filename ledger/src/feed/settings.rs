//! Settings of the sinks. A sink runs if its URL is set.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use axum::http::Uri;
use clap::error::ErrorKind;
use clap::{ArgMatches, Args, Command, FromArgMatches, ValueEnum};
use lapin::uri::{AMQPScheme, AMQPUri};
use service::settings::{CaFile, in_file, positive_duration};

use super::signature::Secrets;
use crate::database::Password;

/// Time between two heartbeats of a connection to the broker, which then notices within about twice this time that the
/// other side is gone.
const HEARTBEAT_SECONDS: u16 = 10;
/// Longest name of an exchange or a queue in AMQP.
const AMQP_NAME_BYTES_MAX: usize = 255;

/// Where orders are delivered.
#[derive(Clone)]
pub struct FeedSettings {
    amqp: Option<AmqpSettings>,
    webhook: Option<WebhookSettings>,
    timeout: Duration,
}

/// How to reach a message broker.
#[derive(Clone)]
pub(crate) struct AmqpSettings {
    pub(crate) uri: AMQPUri,
    pub(crate) ca_file: Option<CaFile>,
    pub(crate) exchange: String,
    pub(crate) queue: Option<String>,
    pub(crate) declare: Declare,
}

/// How to reach a webhook.
#[derive(Clone)]
pub(crate) struct WebhookSettings {
    pub(crate) url: Uri,
    pub(crate) secrets: Secrets,
    pub(crate) ca_file: Option<CaFile>,
}

/// Use of an exchange and a queue that may not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Declare {
    /// Create them.
    Declare,
    /// Only check that they exist.
    Check,
}

/// The settings as they are parsed one by one.
#[derive(Args)]
struct FeedArguments {
    /// RabbitMQ, to which orders are published: amqps://USER:PASSWORD@HOST[:PORT][/VHOST], or amqp:// without TLS
    #[arg(long, env, hide_env_values = true)]
    amqp_url: Option<AmqpUrl>,

    /// A file with the password in its first line, instead of the one in AMQP_URL
    #[arg(long, env, requires = "amqp_url", value_parser = in_file::<Password>)]
    amqp_password_file: Option<Password>,

    /// A file with CA certificates, as PEM, that amqps:// is verified by instead of the system's
    #[arg(long, env, requires = "amqp_url", value_parser = CaFile::parse)]
    amqp_ca_file: Option<CaFile>,

    /// The topic exchange that gets the orders
    #[arg(long, env, value_parser = amqp_name, default_value = "flashsale.orders")]
    amqp_exchange: String,

    /// A queue that gets all events of the exchange. Without it, consumers bind queues of their own
    #[arg(long, env, requires = "amqp_url", value_parser = amqp_name)]
    amqp_queue: Option<String>,

    /// Create exchange and queue, or only check that they exist, for a user who may not create them
    #[arg(long, env, value_enum, default_value = "declare")]
    amqp_declare: Declare,

    /// An endpoint that gets each order by POST: https://, or http:// on this machine
    #[arg(long, env, hide_env_values = true, value_parser = webhook_url)]
    webhook_url: Option<Uri>,

    /// Secrets that sign deliveries: whsec_ and 24 to 64 bytes as base64; several are separated by spaces
    #[arg(
        long,
        env,
        requires = "webhook_url",
        conflicts_with = "webhook_secret_file",
        hide_env_values = true
    )]
    webhook_secret: Option<Secrets>,

    /// A file with the secrets, instead of WEBHOOK_SECRET
    #[arg(long, env, requires = "webhook_url", value_parser = in_file::<Secrets>)]
    webhook_secret_file: Option<Secrets>,

    /// A file with CA certificates, as PEM, that the endpoint is verified by instead of the system's
    #[arg(long, env, requires = "webhook_url", value_parser = CaFile::parse)]
    webhook_ca_file: Option<CaFile>,

    /// Longest time to connect to a sink, and for the confirmation of a delivery
    #[arg(long, env, value_parser = positive_duration, default_value = "10s")]
    feed_timeout: Duration,
}

impl FeedSettings {
    /// The message broker, if one is configured.
    pub(crate) fn amqp(&self) -> Option<AmqpSettings> {
        self.amqp.clone()
    }

    /// The webhook, if one is configured.
    pub(crate) fn webhook(&self) -> Option<WebhookSettings> {
        self.webhook.clone()
    }

    /// Longest time to connect to a sink, and for the confirmation of a delivery.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }
}

/// Settings that are valid one by one, but not together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum ConflictingSettings {
    #[error("AMQP_CA_FILE is set, but AMQP_URL is not amqps://: nothing would be encrypted")]
    UnencryptedAmqp,
    #[error("WEBHOOK_CA_FILE is set, but WEBHOOK_URL is not https://: nothing would be encrypted")]
    UnencryptedWebhook,
    #[error("WEBHOOK_URL needs a secret: WEBHOOK_SECRET or WEBHOOK_SECRET_FILE")]
    WebhookWithoutSecret,
}

impl FeedArguments {
    fn settings(self) -> Result<FeedSettings, ConflictingSettings> {
        let amqp = self.amqp_url.map(|AmqpUrl(mut uri)| {
            if let Some(Password(password)) = self.amqp_password_file {
                uri.authority.userinfo.password = password;
            }
            AmqpSettings {
                uri,
                ca_file: self.amqp_ca_file,
                exchange: self.amqp_exchange,
                queue: self.amqp_queue,
                declare: self.amqp_declare,
            }
        });
        let is_unencrypted =
            |amqp: &AmqpSettings| amqp.ca_file.is_some() && amqp.uri.scheme == AMQPScheme::AMQP;
        if amqp.as_ref().is_some_and(is_unencrypted) {
            return Err(ConflictingSettings::UnencryptedAmqp);
        }
        let webhook = match (self.webhook_url, self.webhook_secret.or(self.webhook_secret_file)) {
            (None, _) => None,
            (Some(_), None) => return Err(ConflictingSettings::WebhookWithoutSecret),
            (Some(url), _) if self.webhook_ca_file.is_some() && url.scheme_str() != Some("https") => {
                return Err(ConflictingSettings::UnencryptedWebhook);
            }
            (Some(url), Some(secrets)) => {
                Some(WebhookSettings { url, secrets, ca_file: self.webhook_ca_file })
            }
        };
        Ok(FeedSettings { amqp, webhook, timeout: self.feed_timeout })
    }
}

impl FromArgMatches for FeedSettings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = FeedArguments::from_arg_matches(matches)?;
        given.settings().map_err(|refusal| clap::Error::raw(ErrorKind::ArgumentConflict, refusal))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for FeedSettings {
    fn augment_args(command: Command) -> Command {
        FeedArguments::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        FeedArguments::augment_args_for_update(command)
    }
}

/// A valid URL of a broker. It is never printed, because it may contain a password.
#[derive(Clone)]
struct AmqpUrl(AMQPUri);

/// A text is not the URL of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not of the form amqps://USER:PASSWORD@HOST[:PORT][/VHOST], or amqp://…, with a host name or an IPv4 address"
)]
struct InvalidAmqpUrl;

impl FromStr for AmqpUrl {
    type Err = InvalidAmqpUrl;

    fn from_str(url: &str) -> Result<Self, InvalidAmqpUrl> {
        let mut uri: AMQPUri = url.parse().map_err(|_| InvalidAmqpUrl)?;
        // The library replaces a host that it does not know, such as an IPv6 address, by localhost.
        if !url.contains(&*uri.authority.host) {
            return Err(InvalidAmqpUrl);
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        Ok(Self(uri))
    }
}

fn amqp_name(name: &str) -> Result<String, &'static str> {
    let is_valid = !name.is_empty() && name.len() <= AMQP_NAME_BYTES_MAX && !name.starts_with("amq.");
    if is_valid { Ok(name.to_owned()) } else { Err("must have 1 to 255 bytes, and not begin with amq.") }
}

fn webhook_url(url: &str) -> Result<Uri, &'static str> {
    let parsed: Option<Uri> = url.parse().ok();
    let is_valid = |uri: &Uri| {
        let has_login = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        let host = uri.host().unwrap_or_default();
        match uri.scheme_str() {
            Some("https") => !host.is_empty() && !has_login,
            Some("http") => is_loopback(host) && !has_login,
            _ => false,
        }
    };
    parsed
        .filter(is_valid)
        .ok_or("must be https://HOST[:PORT][/PATH] without user and password; http:// only on this machine")
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn webhook_is_encrypted_outside_this_machine() {
        for good in
            ["https://shop.example/hook?x=1", "http://127.0.0.1:80/", "http://localhost/", "http://[::1]:1/"]
        {
            assert!(webhook_url(good).is_ok(), "{good}");
        }
        for bad in
            ["", "/hook", "http://shop.example/", "ftp://shop.example/", "https://ann:secret@shop.example/"]
        {
            assert!(webhook_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn broker_is_the_one_in_the_url() {
        let host = |url: &str| url.parse().map(|AmqpUrl(uri)| uri.authority.host);
        assert_eq!(host("amqps://shop:secret@mq.example/orders").unwrap(), "mq.example");
        assert_eq!(host("amqp://127.0.0.1:5672").unwrap(), "127.0.0.1");
        for bad in ["", "amqp:", "http://mq.example", "amqp://[::1]:5672", "amqp:///orders"] {
            assert_eq!(host(bad), Err(InvalidAmqpUrl), "{bad}");
        }
    }
}
