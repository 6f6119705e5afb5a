//! Rules for every dashboard.
//!
//! Most of them are rules of Grafana's dashboard-linter, and the tests have their names. The linter is a Go program
//! without a release to install, and it lacks the other checks (positions, colours, descriptions).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::assert_none;
use crate::dashboard::{Dashboard, GridPos, Panel, Variable, dashboards};
use crate::promql::{Selector, selectors};
use crate::queries::Variables;
use crate::rule_files::rules;

/// Links and bookmarks contain these, so they never change.
const UIDS: [&str; 5] =
    ["flashsale-nodes", "flashsale-orders", "flashsale-redis", "flashsale-sale", "flashsale-shards"];
/// Stands for `$__rate_interval` in parsed queries: an unusual value that is never written by hand.
const RATE_INTERVAL: Duration = Duration::from_secs(4271);
/// The same for `$__range`.
const RANGE: Duration = Duration::from_secs(8543);
/// Grafana units that the panels use. Grafana shows an unknown unit as plain text after the number, so look up a new
/// unit in Grafana's list of value formats before adding it.
const UNITS: [&str; 13] = [
    "Bps",
    "bool",
    "bytes",
    "dateTimeFromNow",
    "dtdurations",
    "locale",
    "none",
    "ops",
    "percentunit",
    "reqps",
    "rps",
    "s",
    "short",
];

/// Returns each panel except rows, with a readable name.
fn panels(dashboards: &[Dashboard]) -> impl Iterator<Item = (String, &Panel)> {
    dashboards.iter().flat_map(|dashboard| {
        dashboard.data_panels().map(|panel| (format!("{} / {}", dashboard.uid, panel.title), panel))
    })
}

/// Returns the selectors of each panel, with a readable name. `$job` and `$instance` are not replaced.
fn selectors_of_panels() -> Vec<(String, Selector)> {
    let mut found = Vec::new();
    for (name, panel) in panels(&dashboards()) {
        for target in &panel.targets {
            let query = recognizable_variables().substitute(&target.expr).unwrap();
            found.extend(selectors(&query).unwrap().into_iter().map(|selector| (name.clone(), selector)));
        }
    }
    found
}

/// Returns variables whose values can be recognized in a parsed query.
fn recognizable_variables() -> Variables {
    let seconds = |duration: Duration| format!("{}s", duration.as_secs());
    let chosen_by_viewers = ["job", "instance", "sale"];
    let variables =
        chosen_by_viewers.iter().fold(Variables::live(), |all, name| all.with(name, &format!("${name}")));
    variables.with("__rate_interval", &seconds(RATE_INTERVAL)).with("__range", &seconds(RANGE))
}

/// Asserts that no selector of a panel is wrong.
#[track_caller]
fn assert_no_selector(is_wrong: impl Fn(&Selector) -> bool, what: &str) {
    let wrong = selectors_of_panels().into_iter().filter(|(_, selector)| is_wrong(selector));
    assert_none(wrong.map(|(name, selector)| format!("{name}: {}", selector.metric)), what);
}

/// Asserts that no panel is wrong.
#[track_caller]
fn assert_no_panel(is_wrong: impl Fn(&Panel) -> bool, what: &str) {
    let dashboards = dashboards();
    assert_none(panels(&dashboards).filter(|(_, panel)| is_wrong(panel)).map(|(name, _)| name), what);
}

#[test]
fn uids_equal_the_file_names() {
    let uids: Vec<_> = dashboards().into_iter().map(|dashboard| dashboard.uid).collect();
    assert_eq!(uids, UIDS);
    let files = ::dashboards::folder().join("grafana/dashboards");
    let without_file = UIDS.into_iter().filter(|uid| !files.join(format!("{uid}.json")).is_file());
    assert_none(without_file.map(str::to_owned), "no file of that name");
}

#[test]
fn dashboards_state_their_question_and_link_others() {
    for dashboard in dashboards() {
        assert!(dashboard.title.starts_with("Flash sale / "), "{}", dashboard.title);
        assert!(dashboard.description.contains('?'), "{}: {}", dashboard.uid, dashboard.description);
        assert_eq!(dashboard.tags, ["flashsale"], "{}", dashboard.uid);
        let link = dashboard.links.iter().find(|link| link.kind == "dashboards");
        assert!(link.is_some_and(|link| link.tags == dashboard.tags), "{}", dashboard.uid);
        // Grafana 10.1 was the first version with this schema. Later versions read and update it.
        assert_eq!(dashboard.schema_version, 39, "{}", dashboard.uid);
    }
}

#[test]
fn uneditable_dashboard_rule() {
    let editable = dashboards().into_iter().filter(|dashboard| dashboard.editable);
    assert_none(editable.map(|dashboard| dashboard.uid), "dashboards must not be editable");
}

#[test]
fn template_datasource_rule() {
    for dashboard in dashboards() {
        let variable = dashboard.variable("datasource").expect("a data source can be chosen");
        let shape = [&variable.kind, &variable.query, &variable.label].map(String::as_str);
        assert_eq!(shape, ["datasource", "prometheus", "Data source"], "{}", dashboard.uid);
    }
}

#[test]
fn template_job_rule_and_template_instance_rule() {
    for dashboard in dashboards() {
        for (name, label) in [("job", "Job"), ("instance", "Instance")] {
            let variable = dashboard.variable(name).expect("the dashboard has the variable");
            assert_eq!(variable.label, label, "{}", dashboard.uid);
            assert_selects_all_values(&dashboard, variable);
        }
        dashboard.variable("sale").into_iter().for_each(|sale| assert_selects_all_values(&dashboard, sale));
    }
}

fn assert_selects_all_values(dashboard: &Dashboard, variable: &Variable) {
    let name = format!("{} ${}", dashboard.uid, variable.name);
    assert_eq!(variable.kind, "query", "{name}");
    assert!(variable.datasource.as_ref().is_some_and(|source| source.uid == "${datasource}"), "{name}");
    assert!(variable.multi && variable.include_all, "{name}");
    assert_eq!(variable.all_value.as_deref(), Some(".+"), "{name}");
    assert_eq!(variable.current.value, ["$__all"], "{name}");
}

#[test]
fn template_label_promql_rule() {
    for dashboard in dashboards() {
        for variable in dashboard.templating.list.iter().filter(|variable| variable.kind == "query") {
            let arguments =
                variable.query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
            let (series, label) =
                arguments.and_then(|both| both.rsplit_once(", ")).expect("label_values(series, label)");
            assert_eq!(label, variable.name, "{}", dashboard.uid);
            selectors(&recognizable_variables().substitute(series).unwrap()).unwrap();
        }
    }
}

#[test]
fn template_on_time_change_reload_rule() {
    let dashboards = dashboards();
    let variables = dashboards.iter().flat_map(|dashboard| &dashboard.templating.list);
    let stale = variables.filter(|variable| variable.kind == "query" && variable.refresh != 2);
    assert_none(stale.map(|variable| variable.name.clone()), "not refreshed when the time range changes");
}

#[test]
fn panel_datasource_rule() {
    for (name, panel) in panels(&dashboards()) {
        let sources =
            panel.targets.iter().map(|target| Some(&target.datasource)).chain([panel.datasource.as_ref()]);
        for source in sources {
            let source = source.expect("a panel has a data source");
            assert_eq!((&*source.kind, &*source.uid), ("prometheus", "${datasource}"), "{name}");
        }
    }
}

#[test]
fn panel_title_description_rule() {
    let lacks_question = |panel: &Panel| panel.title.is_empty() || !panel.description.contains('?');
    assert_no_panel(lacks_question, "a panel without a title or a question");
    for dashboard in dashboards() {
        let titles: BTreeSet<_> = dashboard.panels.iter().map(|panel| &panel.title).collect();
        assert_eq!(titles.len(), dashboard.panels.len(), "{}: two panels with the same title", dashboard.uid);
    }
}

#[test]
fn panel_units_rule() {
    let has_unit = |panel: &Panel| {
        panel.field_config.defaults.unit.as_ref().is_some_and(|unit| UNITS.contains(&unit.as_str()))
    };
    assert_no_panel(|panel| !has_unit(panel), "no unit, or an unknown unit");
}

#[test]
fn panel_no_targets_rule() {
    assert_no_panel(|panel| panel.targets.is_empty(), "no query");
    let repeats_id = |panel: &Panel| {
        panel.targets.iter().map(|target| &target.ref_id).collect::<BTreeSet<_>>().len() < panel.targets.len()
    };
    assert_no_panel(repeats_id, "two queries with the same refId");
}

#[test]
fn target_promql_rule() {
    assert!(selectors_of_panels().len() > 100, "queries have selectors");
    for dashboard in dashboards() {
        for expr in dashboard.annotations.list.iter().filter_map(|annotation| annotation.expr.as_ref()) {
            selectors(expr).unwrap();
        }
    }
}

#[test]
fn rules_are_valid_promql() {
    for rule in rules() {
        assert!(!selectors(&rule.expr).unwrap().is_empty(), "{:?} {:?}", rule.alert, rule.record);
    }
}

#[test]
fn target_rate_interval_rule() {
    let is_fixed = |selector: &Selector| match selector.range {
        None | Some(RATE_INTERVAL) => false,
        Some(RANGE) => selector.function != Some("increase"),
        Some(_) => true,
    };
    assert_no_selector(is_fixed, "not over $__rate_interval");
}

#[test]
fn target_job_rule_and_target_instance_rule() {
    for label in ["job", "instance"] {
        let wanted = (label.to_owned(), format!("${label}"));
        let is_unbound = |selector: &Selector| !selector.regexps.contains(&wanted);
        assert_no_selector(is_unbound, &format!("no {label}=~\"${label}\""));
    }
}

#[test]
fn sale_variable_is_used_by_its_dashboard() {
    for dashboard in dashboards() {
        let has_variable = dashboard.variable("sale").is_some();
        let uses_variable = dashboard
            .data_panels()
            .flat_map(|panel| &panel.targets)
            .any(|t| t.expr.contains("sale=~\"$sale\""));
        assert_eq!(has_variable, uses_variable, "{}", dashboard.uid);
    }
}

#[test]
fn target_counter_agg_rule() {
    let rates = [Some("rate"), Some("irate"), Some("increase")];
    let counts =
        |metric: &str| ["_total", "_bucket", "_sum", "_count"].iter().any(|suffix| metric.ends_with(suffix));
    let is_bare = |selector: &Selector| counts(&selector.metric) && !rates.contains(&selector.function);
    assert_no_selector(is_bare, "a counter without a rate");
}

#[test]
fn panel_ids_are_unique() {
    for dashboard in dashboards() {
        let ids: BTreeSet<_> = dashboard.panels.iter().map(|panel| panel.id).collect();
        assert_eq!(ids.len(), dashboard.panels.len(), "{}", dashboard.uid);
    }
}

#[test]
fn panels_fit_the_grid_without_overlap() {
    for dashboard in dashboards() {
        for (index, panel) in dashboard.panels.iter().enumerate() {
            let name = format!("{} / {}", dashboard.uid, panel.title);
            let position = panel.grid_pos;
            let is_on_grid = position.w > 0 && position.h > 0 && position.x + position.w <= 24;
            assert!(is_on_grid, "{name}: {position:?}");
            let others = &dashboard.panels[index + 1..];
            let overlapping = others.iter().find(|other| overlap(position, other.grid_pos));
            assert!(overlapping.is_none(), "{name} and {}", overlapping.map_or("", |other| &other.title));
        }
    }
}

fn overlap(a: GridPos, b: GridPos) -> bool {
    a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h
}

#[test]
fn panel_rows_are_full() {
    for dashboard in dashboards() {
        let height = dashboard.panels.iter().map(|panel| panel.grid_pos.y + panel.grid_pos.h).max().unwrap();
        for line in 0..height {
            let is_in_line = |place: &GridPos| (place.y..place.y + place.h).contains(&line);
            let places = dashboard.panels.iter().map(|panel| panel.grid_pos).filter(is_in_line);
            assert_eq!(places.map(|place| place.w).sum::<u32>(), 24, "{}, line {line}", dashboard.uid);
        }
    }
}

/// A viewer who compares panels should not have to read each legend again.
#[test]
fn series_have_the_same_colour_everywhere() {
    let (dashboards, mut colours) = (dashboards(), BTreeMap::new());
    for (name, panel) in panels(&dashboards) {
        for series in panel.field_config.overrides.iter().filter(|series| series.matcher.id == "byName") {
            for colour in series.properties.iter().filter_map(|property| property.colour()) {
                let first = *colours.entry(&*series.matcher.options).or_insert(colour);
                assert_eq!(first, colour, "{name}: {}", series.matcher.options);
            }
        }
    }
    assert_eq!(colours["unknown"], "red");
}

#[test]
fn purchase_outcomes_have_fixed_colours() {
    let outcomes = ["purchased", "already_purchased", "out_of_stock", "not_active", "busy", "unknown"];
    let shows_outcomes = |panel: &Panel| {
        panel.targets.iter().any(|t| t.expr.contains("sum by (outcome) (rate(flashsale_purchases_total"))
    };
    let dashboards = dashboards();
    let mut shown = panels(&dashboards).filter(|(_, panel)| shows_outcomes(panel)).peekable();
    assert!(shown.peek().is_some(), "outcomes are shown");
    for (name, panel) in shown {
        let coloured: BTreeSet<_> =
            panel.field_config.overrides.iter().map(|o| o.matcher.options.as_str()).collect();
        assert_none(outcomes.iter().filter(|o| !coloured.contains(*o)).map(ToString::to_string), &name);
    }
}

#[test]
fn thresholds_ascend_from_the_lowest() {
    for (name, panel) in panels(&dashboards()) {
        let steps = panel.field_config.defaults.thresholds.iter().flat_map(|thresholds| &thresholds.steps);
        let values: Vec<_> = steps.map(|step| step.value.unwrap_or(f64::NEG_INFINITY)).collect();
        assert!(values.first().is_none_or(|lowest| lowest.is_infinite()), "{name}");
        assert!(values.is_sorted(), "{name}: {values:?}");
    }
}
