//! Authentication of buyers.

use crate::Faults;
use crate::overlay::Overlay;
use crate::settings::setting;

/// The overlay for trials, where buyers have no accounts.
const TRIAL: &str = "local";

/// Nodes verify their buyers, except in a trial: by tokens and the keys for them, or by a header of named proxies.
pub(crate) fn auth(overlay: &Overlay, faults: &mut Faults) {
    for container in overlay.containers().iter().filter(|it| it.program() == Some("flashsale-node")) {
        let is_set = |variable: &str| setting(container, overlay, variable).is_some_and(|it| !it.is_empty());
        let needed: &[&str] = match setting(container, overlay, "AUTH").as_deref() {
            Some("jwt") => &["JWT_JWKS_FILE", "JWT_AUDIENCE", "JWT_ISSUER"],
            Some("header") => &["TRUSTED_PROXIES"],
            Some("none") if overlay.name == TRIAL => &[],
            other => {
                faults.add_in_container(container, "AUTH", format!("{other:?} verifies no buyer"));
                continue;
            }
        };
        for variable in needed.iter().filter(|variable| !is_set(variable)) {
            faults.add_in_container(container, variable, "AUTH needs it");
        }
    }
}
