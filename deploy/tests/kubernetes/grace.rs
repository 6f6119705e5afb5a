//! The time that a pod has for a clean shutdown.

use service::settings::duration;

use crate::Faults;
use crate::overlay::{Overlay, list, text};
use crate::settings::setting;
use crate::workload::{Container, Mounted};

/// Time for a program's last log lines and the end of its process.
const END_S: f64 = 2.0;
/// Default time that a Redis server waits for its replica.
const SHUTDOWN_S: f64 = 10.0;
/// Default grace period of Kubernetes.
const GRACE_S: f64 = 30.0;

/// The grace period of a pod covers everything that it does before it ends.
pub(crate) fn grace(overlay: &Overlay, faults: &mut Faults) {
    for container in overlay.containers().iter().filter(|container| container.workload.serves()) {
        let needed = seconds_before(container, overlay) + seconds_to_end(container, overlay) + END_S;
        let spec = container.workload.spec();
        let given = spec["terminationGracePeriodSeconds"].as_f64().unwrap_or(GRACE_S);
        if given < needed {
            let reason = format!("it is killed after {given} s, but needs {needed} s");
            faults.add_in_pod(&container.workload, "/terminationGracePeriodSeconds", reason);
        }
    }
}

/// Returns the maximum time of the `preStop` hook. Infinite for a script that states no limit.
fn seconds_before(container: &Container<'_>, overlay: &Overlay) -> f64 {
    let hook = &container.value["lifecycle"]["preStop"];
    let sleep = hook["sleep"]["seconds"].as_f64().unwrap_or(0.0);
    list(&hook["exec"]["command"]).last().map_or(sleep, |script| {
        let script = file(container, overlay, text(script));
        number_after(script, "\nHANDOVER_S_MAX=").unwrap_or(f64::INFINITY)
    })
}

/// Returns the time that a program takes after SIGTERM.
fn seconds_to_end(container: &Container<'_>, overlay: &Overlay) -> f64 {
    let drain = ["DRAIN_DELAY", "DRAIN_TIMEOUT"].into_iter();
    let drain = drain.filter_map(|variable| setting(container, overlay, variable));
    let own = drain.map(|text| duration(&text).expect("a duration").as_secs_f64()).sum();
    let configuration =
        setting(container, overlay, "CONF_FOLDER").map(|folder| format!("{folder}/redis.conf"));
    configuration.map_or(own, |path| {
        number_after(file(container, overlay, &path), "\nshutdown-timeout ").unwrap_or(SHUTDOWN_S)
    })
}

/// Returns the contents of a ConfigMap's file as the container sees it.
fn file<'a>(container: &Container<'a>, overlay: &'a Overlay, path: &str) -> &'a str {
    let (folder, name) = path.rsplit_once('/').unwrap_or_default();
    match container.mounts(overlay).into_iter().find(|(path, _)| *path == folder) {
        Some((_, Mounted::Configuration(data, _))) => text(&data[name]),
        _ => "",
    }
}

fn number_after(text: &str, words: &str) -> Option<f64> {
    let (_, rest) = text.split_once(words)?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}
