//! The routes of the edge: their paths and their names in metrics and logs.

/// A route of the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// `POST /v1/events`, alias `/api/events`.
    Events,
    /// `POST /v1/counters`, alias `/web/post.php`.
    Counters,
    /// `POST /v1/votes`.
    Votes,
    /// `POST /analytics?…` and `POST /analytics/…`: a reaction (a click or an impression of a user) whose fields are in
    /// the query or in the path.
    Analytics,
    /// Any other path: `404`.
    Other,
}

impl Route {
    /// All routes. The edge creates the metrics of each route at startup, so that they are 0 before the first request.
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

    /// The path under which the route is documented; `None` for [`Route::Other`].
    pub fn path(self) -> Option<&'static str> {
        match self {
            Self::Events => Some("/v1/events"),
            Self::Counters => Some("/v1/counters"),
            Self::Votes => Some("/v1/votes"),
            Self::Analytics => Some("/analytics"),
            Self::Other => None,
        }
    }

    /// The name of the route in metrics and logs.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_path_of_a_route_selects_it() {
        for route in Route::ALL {
            assert_eq!(Route::of(route.path().unwrap_or("/")), route);
        }
    }
}
