//! Errors of settings.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

/// The error of a setting that is zero, or that another setting excludes.
///
/// ```
/// use server_sent_events::Publisher;
///
/// let error = Publisher::builder().max_queued_events(0).build().unwrap_err();
/// assert_eq!(error.to_string(), "`max_queued_events` must be greater than 0");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InvalidSetting {
    setting: &'static str,
    problem: Problem,
}

/// What is wrong with a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Problem {
    Zero,
    /// The setting takes an `Option`.
    ZeroNotNone,
    BlocksTheStore,
    FollowsAndStores,
    NeedsHistory,
    #[cfg(feature = "client")]
    NamesNoChannel,
}

impl InvalidSetting {
    /// Returns an error that names the setting if it is zero.
    pub(crate) fn check(setting: &'static str, is_zero: bool) -> Result<(), Self> {
        if is_zero { Err(Self { setting, problem: Problem::Zero }) } else { Ok(()) }
    }

    /// Checks a duration that may be absent.
    pub(crate) fn check_option(setting: &'static str, duration: Option<Duration>) -> Result<(), Self> {
        let is_zero = duration == Some(Duration::ZERO);
        Self::check(setting, is_zero).map_err(|error| Self { problem: Problem::ZeroNotNone, ..error })
    }

    /// Creates the error of a policy that would let one subscriber stop the store.
    pub(crate) fn blocks_the_store() -> Self {
        Self { setting: "overflow", problem: Problem::BlocksTheStore }
    }

    /// Creates the error of a history that would both follow another one and be kept in a store.
    pub(crate) fn follows_and_stores() -> Self {
        Self { setting: "History::follow", problem: Problem::FollowsAndStores }
    }

    /// Creates the error of a follower of a publisher that has no history.
    pub(crate) fn needs_history() -> Self {
        Self { setting: "for_follower", problem: Problem::NeedsHistory }
    }

    /// Creates the error of channels to follow that are none.
    #[cfg(feature = "client")]
    pub(crate) fn names_no_channel() -> Self {
        Self { setting: "Upstream::channels", problem: Problem::NamesNoChannel }
    }

    /// Returns the name of the setting.
    pub fn setting(&self) -> &'static str {
        self.setting
    }
}

impl fmt::Display for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = match self.problem {
            Problem::Zero => "must be greater than 0",
            Problem::ZeroNotNone => "must be greater than 0, or None",
            Problem::BlocksTheStore => {
                "must not be `Block` if the history has a store or follows another one, which one subscriber would stop: use \
                 another policy"
            }
            Problem::FollowsAndStores => "excludes `History::store`: the followed publisher keeps the events",
            Problem::NeedsHistory => "needs a publisher with a history: set `PublisherBuilder::history`",
            #[cfg(feature = "client")]
            Problem::NamesNoChannel => "must name at least one channel",
        };
        write!(f, "`{}` {rule}", self.setting)
    }
}

impl Error for InvalidSetting {}

/// Converts into an error of the kind [`InvalidInput`](io::ErrorKind::InvalidInput).
impl From<InvalidSetting> for io::Error {
    fn from(error: InvalidSetting) -> Self {
        Self::new(io::ErrorKind::InvalidInput, error)
    }
}

/// The reason why a text is not an [`Overflow`](crate::Overflow) policy.
///
/// ```
/// use server_sent_events::Overflow;
///
/// let error = "drop".parse::<Overflow>().unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "unknown overflow policy \"drop\": use disconnect, drop-oldest, latest-per-key, or block:TIME such as block:5s",
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ParseOverflowError {
    /// No policy has this name.
    UnknownPolicy {
        /// The text that was given.
        text: String,
    },
    /// The time after `block:` is not a whole number with a unit, or is too long.
    InvalidTime {
        /// The time that was given.
        text: String,
    },
}

impl fmt::Display for ParseOverflowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownPolicy { text } => write!(
                f,
                "unknown overflow policy {text:?}: use disconnect, drop-oldest, latest-per-key, or block:TIME such as block:5s"
            ),
            Self::InvalidTime { text } => {
                write!(f, "invalid time {text:?} after \"block:\": use a whole number of s, ms, us or ns, such as 5s")
            }
        }
    }
}

impl Error for ParseOverflowError {}
