//! What every dashboard has to be, whatever it shows.
//!
//! Grafana's own dashboard-linter asks most of this; its rules have their names here. It is a Go program that has no
//! release to install, and what else is asked here (places, colours, descriptions) it does not know.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dashboards::{Dashboard, GridPos, Panel, RuleFile, Selector, Variable, Variables, selectors};

/// Links and bookmarks hold these: they never change.
const UIDS: [&str; 4] = ["flashsale-nodes", "flashsale-redis", "flashsale-sale", "flashsale-shards"];
/// What stands for `$__rate_interval` while queries are read: no one would write it by hand.
const RATE_INTERVAL: Duration = Duration::from_secs(4271);
/// The same for `$__range`.
const RANGE: Duration = Duration::from_secs(8543);
/// Units of Grafana that the panels use. It shows others that it does not know as text behind the number, so a unit that
/// is new here is looked up in its list of value formats first.
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

fn dashboards() -> Vec<Dashboard> {
    Dashboard::all().expect("dashboards that can be read")
}

/// Each panel that shows something, with a name for people.
fn panels(dashboards: &[Dashboard]) -> impl Iterator<Item = (String, &Panel)> {
    dashboards.iter().flat_map(|dashboard| {
        dashboard.shown().map(|panel| (format!("{} / {}", dashboard.uid, panel.title), panel))
    })
}

/// The selectors of each panel, with a name for people. `$job` and `$instance` are left as they are.
fn selectors_of_panels() -> Vec<(String, Selector)> {
    let mut found = Vec::new();
    for (name, panel) in panels(&dashboards()) {
        for target in &panel.targets {
            let query = unchosen().substitute(&target.expr).expect("variables that Grafana has");
            found.extend(
                selectors(&query).expect("PromQL").into_iter().map(|selector| (name.clone(), selector)),
            );
        }
    }
    found
}

/// Variables whose values can be told in a query that was read.
fn unchosen() -> Variables {
    let seconds = |duration: Duration| format!("{}s", duration.as_secs());
    let chosen_by_viewers = ["job", "instance", "sale"];
    let variables =
        chosen_by_viewers.iter().fold(Variables::live(), |all, name| all.with(name, &format!("${name}")));
    variables.with("__rate_interval", &seconds(RATE_INTERVAL)).with("__range", &seconds(RANGE))
}

fn assert_none(wrong: impl IntoIterator<Item = String>, what: &str) {
    let wrong: Vec<_> = wrong.into_iter().collect();
    assert!(wrong.is_empty(), "{what}:\n  {}", wrong.join("\n  "));
}

#[test]
fn uids_are_the_names_of_the_files_and_never_change() {
    let uids: Vec<_> = dashboards().into_iter().map(|dashboard| dashboard.uid).collect();
    assert_eq!(uids, UIDS);
    let files = dashboards::folder().join("grafana/dashboards");
    assert_none(
        UIDS.iter().filter(|uid| !files.join(format!("{uid}.json")).is_file()).map(ToString::to_string),
        "no file of that name",
    );
}

#[test]
fn each_dashboard_says_what_it_answers_and_links_to_the_others() {
    for dashboard in dashboards() {
        assert!(dashboard.title.starts_with("Flash sale / "), "{}", dashboard.title);
        assert!(dashboard.description.contains('?'), "{}: {}", dashboard.uid, dashboard.description);
        assert_eq!(dashboard.tags, ["flashsale"], "{}", dashboard.uid);
        let link = dashboard.links.iter().find(|link| link.kind == "dashboards");
        assert!(link.is_some_and(|link| link.tags == dashboard.tags), "{}", dashboard.uid);
        // Grafana 10.1 was the first with this one; later ones read it and bring it up to date.
        assert_eq!(dashboard.schema_version, 39, "{}", dashboard.uid);
    }
}

#[test]
fn uneditable_dashboard_rule() {
    assert_none(dashboards().into_iter().filter(|d| d.editable).map(|d| d.uid), "the file is the truth");
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
            let variable = dashboard.variable(name).expect("the variable is there");
            assert_eq!(variable.label, label, "{}", dashboard.uid);
            assert_asks_for_all(&dashboard, variable);
        }
        dashboard.variable("sale").into_iter().for_each(|sale| assert_asks_for_all(&dashboard, sale));
    }
}

fn assert_asks_for_all(dashboard: &Dashboard, variable: &Variable) {
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
            selectors(&unchosen().substitute(series).unwrap()).unwrap();
        }
    }
}

#[test]
fn template_on_time_change_reload_rule() {
    let dashboards = dashboards();
    let variables = dashboards.iter().flat_map(|dashboard| &dashboard.templating.list);
    let stale = variables.filter(|variable| variable.kind == "query" && variable.refresh != 2);
    assert_none(
        stale.map(|variable| variable.name.clone()),
        "not asked for again when the time range changes",
    );
}

#[test]
fn panel_datasource_rule() {
    for (name, panel) in panels(&dashboards()) {
        let sources =
            panel.targets.iter().map(|target| Some(&target.datasource)).chain([panel.datasource.as_ref()]);
        for source in sources {
            let source = source.expect("a panel has a data source");
            assert_eq!(
                (source.kind.as_str(), source.uid.as_str()),
                ("prometheus", "${datasource}"),
                "{name}"
            );
        }
    }
}

#[test]
fn panel_title_description_rule() {
    let dashboards = dashboards();
    let untold = |panel: &Panel| panel.title.is_empty() || !panel.description.contains('?');
    assert_none(
        panels(&dashboards).filter(|(_, panel)| untold(panel)).map(|(name, _)| name),
        "a panel has a title, and says the question it answers",
    );
    for dashboard in &dashboards {
        let titles: BTreeSet<_> = dashboard.panels.iter().map(|panel| &panel.title).collect();
        assert_eq!(titles.len(), dashboard.panels.len(), "{}: two panels of one title", dashboard.uid);
    }
}

#[test]
fn panel_units_rule() {
    let dashboards = dashboards();
    let unit = |panel: &Panel| panel.field_config.defaults.unit.clone().unwrap_or_default();
    let odd = panels(&dashboards).filter(|(_, panel)| !UNITS.contains(&unit(panel).as_str()));
    assert_none(
        odd.map(|(name, panel)| format!("{name}: `{}`", unit(panel))),
        "no unit, or one nobody looked up",
    );
}

#[test]
fn panel_no_targets_rule() {
    let dashboards = dashboards();
    let silent = panels(&dashboards).filter(|(_, panel)| panel.targets.is_empty());
    assert_none(silent.map(|(name, _)| name), "asks nothing");
    for (name, panel) in panels(&dashboards) {
        let ids: BTreeSet<_> = panel.targets.iter().map(|target| &target.ref_id).collect();
        assert_eq!(ids.len(), panel.targets.len(), "{name}: two queries of one refId");
    }
}

#[test]
fn target_promql_rule() {
    assert!(selectors_of_panels().len() > 100, "every query names series");
    for dashboard in dashboards() {
        for expr in dashboard.annotations.list.iter().filter_map(|annotation| annotation.expr.as_ref()) {
            selectors(expr).unwrap();
        }
    }
}

#[test]
fn rules_are_promql_too() {
    for rule in RuleFile::rules().unwrap() {
        assert!(!selectors(&rule.expr).unwrap().is_empty(), "{:?} {:?}", rule.alert, rule.record);
    }
}

#[test]
fn target_rate_interval_rule() {
    let ranges = selectors_of_panels().into_iter().filter(|(_, selector)| selector.range.is_some());
    let fixed = ranges.filter(|(_, selector)| {
        let in_all_that_is_shown = selector.range == Some(RANGE) && selector.function == Some("increase");
        selector.range != Some(RATE_INTERVAL) && !in_all_that_is_shown
    });
    assert_none(
        fixed.map(|(name, selector)| format!("{name}: {}", selector.metric)),
        "not over $__rate_interval",
    );
}

#[test]
fn target_job_rule_and_target_instance_rule() {
    for label in ["job", "instance"] {
        let wanted = (label.to_owned(), format!("${label}"));
        let unbound =
            selectors_of_panels().into_iter().filter(|(_, selector)| !selector.regexps.contains(&wanted));
        assert_none(
            unbound.map(|(name, selector)| format!("{name}: {}", selector.metric)),
            &format!("no {label}=~\"${label}\""),
        );
    }
}

#[test]
fn a_dashboard_with_a_choice_of_sales_heeds_it() {
    for dashboard in dashboards() {
        let chooses = dashboard.variable("sale").is_some();
        let heeds =
            dashboard.shown().flat_map(|panel| &panel.targets).any(|t| t.expr.contains("sale=~\"$sale\""));
        assert_eq!(chooses, heeds, "{}", dashboard.uid);
    }
}

#[test]
fn target_counter_agg_rule() {
    let rates = [Some("rate"), Some("irate"), Some("increase")];
    let bare = selectors_of_panels().into_iter().filter(|(_, selector)| {
        let counts =
            ["_total", "_bucket", "_sum", "_count"].iter().any(|suffix| selector.metric.ends_with(suffix));
        counts && !rates.contains(&selector.function)
    });
    assert_none(
        bare.map(|(name, selector)| format!("{name}: {}", selector.metric)),
        "a counter that is no rate",
    );
}

#[test]
fn ids_of_panels_are_unique() {
    for dashboard in dashboards() {
        let ids: BTreeSet<_> = dashboard.panels.iter().map(|panel| panel.id).collect();
        assert_eq!(ids.len(), dashboard.panels.len(), "{}", dashboard.uid);
    }
}

#[test]
fn panels_fit_the_grid_and_no_two_lie_in_one_place() {
    for dashboard in dashboards() {
        for (index, panel) in dashboard.panels.iter().enumerate() {
            let name = format!("{} / {}", dashboard.uid, panel.title);
            let place = panel.grid_pos;
            assert!(place.w > 0 && place.h > 0 && place.x + place.w <= 24, "{name}: {place:?}");
            let others = &dashboard.panels[index + 1..];
            let in_its_way = others.iter().find(|other| overlap(place, other.grid_pos));
            assert!(in_its_way.is_none(), "{name} and {}", in_its_way.map_or("", |other| &other.title));
        }
    }
}

fn overlap(a: GridPos, b: GridPos) -> bool {
    a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h
}

#[test]
fn lines_of_panels_are_full() {
    for dashboard in dashboards() {
        let height = dashboard.panels.iter().map(|panel| panel.grid_pos.y + panel.grid_pos.h).max().unwrap();
        for line in 0..height {
            let there = |place: &GridPos| (place.y..place.y + place.h).contains(&line);
            let places = dashboard.panels.iter().map(|panel| panel.grid_pos).filter(there);
            assert_eq!(places.map(|place| place.w).sum::<u32>(), 24, "{}, line {line}", dashboard.uid);
        }
    }
}

/// Whoever looks from one panel to the next must not have to read the legend again.
#[test]
fn a_name_has_the_same_colour_everywhere() {
    let mut colours = BTreeMap::new();
    for (name, panel) in panels(&dashboards()) {
        for of_some in panel.field_config.overrides.iter().filter(|of_some| of_some.matcher.id == "byName") {
            for colour in of_some.properties.iter().filter_map(|property| property.colour()) {
                let series = of_some.matcher.options.clone();
                let first = colours.entry(series.clone()).or_insert_with(|| colour.clone());
                assert_eq!(*first, colour, "{name}: {series}");
            }
        }
    }
    assert_eq!(colours["unknown"].fixed_color, "red");
}

#[test]
fn outcomes_of_purchases_have_their_colours_wherever_they_are_shown() {
    let outcomes =
        ["purchased", "already_purchased", "out_of_stock", "not_active", "limited", "busy", "unknown"];
    let is_of_outcomes = |panel: &Panel| {
        panel.targets.iter().any(|t| t.expr.contains("sum by (outcome) (rate(flashsale_purchases_total"))
    };
    let dashboards = dashboards();
    let mut shown = panels(&dashboards).filter(|(_, panel)| is_of_outcomes(panel)).peekable();
    assert!(shown.peek().is_some(), "outcomes are shown");
    for (name, panel) in shown {
        let coloured: BTreeSet<_> =
            panel.field_config.overrides.iter().map(|o| o.matcher.options.as_str()).collect();
        assert_none(outcomes.iter().filter(|o| !coloured.contains(*o)).map(ToString::to_string), &name);
    }
}

#[test]
fn thresholds_begin_at_the_lowest_and_grow() {
    for (name, panel) in panels(&dashboards()) {
        let steps = panel.field_config.defaults.thresholds.iter().flat_map(|thresholds| &thresholds.steps);
        let values: Vec<_> = steps.map(|step| step.value.unwrap_or(f64::NEG_INFINITY)).collect();
        assert!(values.first().is_none_or(|lowest| lowest.is_infinite()), "{name}");
        assert!(values.is_sorted(), "{name}: {values:?}");
    }
}
