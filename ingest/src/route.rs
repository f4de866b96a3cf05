//! The routes of the edge: their paths and their names in metrics.

/// The routes, as metrics name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// `POST /v1/events`, alias `/api/events`.
    Events,
    /// `POST /v1/counters`, alias `/web/post.php`.
    Counters,
    /// `POST /v1/votes`.
    Votes,
    /// `POST /analytics` in both forms.
    Analytics,
    /// Everything else: `404`.
    Other,
}

impl Route {
    /// All routes, for metrics that start at zero.
    pub const ALL: [Self; 5] = [Self::Events, Self::Counters, Self::Votes, Self::Analytics, Self::Other];

    /// The route of a path.
    pub fn of(path: &str) -> Self {
        match path {
            "/v1/events" | "/api/events" => Self::Events,
            "/v1/counters" | "/web/post.php" => Self::Counters,
            "/v1/votes" => Self::Votes,
            "/analytics" => Self::Analytics,
            _ if path.starts_with("/analytics/") => Self::Analytics,
            _ => Self::Other,
        }
    }

    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Counters => "counters",
            Self::Votes => "votes",
            Self::Analytics => "analytics",
            Self::Other => "other",
        }
    }
}
