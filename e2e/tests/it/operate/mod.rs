//! What operators meet: mistakes in the configuration, dependencies that are down, logins and rights, and the audit.

mod start_errors;

mod late_dependencies;

mod login;

mod rights;

mod outage;

mod audit;
