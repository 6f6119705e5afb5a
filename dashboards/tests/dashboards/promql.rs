//! The selectors of a PromQL query.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use promql_parser::label::MatchOp;
use promql_parser::parser::{self, Expr, VectorSelector};

/// A selector: the series that a query requests.
pub(crate) struct Selector {
    pub(crate) metric: String,
    /// Labels with a regular expression (`=~`), and the expression.
    pub(crate) regexps: Vec<(String, String)>,
    /// Time range, for range selectors.
    pub(crate) range: Option<Duration>,
    /// The function that receives the selector directly, if any.
    pub(crate) function: Option<&'static str>,
}

/// Returns all selectors of a query without variables. Fails when the query is not valid PromQL, or has a selector
/// without a metric name.
pub(crate) fn selectors(query: &str) -> Result<Vec<Selector>> {
    let expr =
        parser::parse(query).map_err(|message| anyhow!("{message}")).with_context(|| query.to_owned())?;
    let mut found = Vec::new();
    collect(&expr, None, &mut found).with_context(|| query.to_owned())?;
    Ok(found)
}

/// Adds the selectors of `expr`, which is an argument of `function`.
fn collect(expr: &Expr, function: Option<&'static str>, found: &mut Vec<Selector>) -> Result<()> {
    match expr {
        Expr::Aggregate(aggregate) => {
            let parameter = aggregate.param.as_deref();
            parameter.into_iter().chain([&*aggregate.expr]).try_for_each(|expr| collect(expr, None, found))
        }
        Expr::Unary(unary) => collect(&unary.expr, None, found),
        Expr::Binary(binary) => {
            [&*binary.lhs, &*binary.rhs].into_iter().try_for_each(|expr| collect(expr, None, found))
        }
        Expr::Paren(paren) => collect(&paren.expr, function, found),
        Expr::Subquery(subquery) => collect(&subquery.expr, None, found),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Ok(()),
        Expr::VectorSelector(vector) => {
            found.push(selector(vector, None, function)?);
            Ok(())
        }
        Expr::MatrixSelector(matrix) => {
            found.push(selector(&matrix.vs, Some(matrix.range), function)?);
            Ok(())
        }
        Expr::Call(call) => {
            call.args.args.iter().try_for_each(|expr| collect(expr, Some(call.func.name), found))
        }
        Expr::Extension(_) => bail!("unexpected extension expression"),
    }
}

fn selector(
    vector: &VectorSelector,
    range: Option<Duration>,
    function: Option<&'static str>,
) -> Result<Selector> {
    let metric = vector.name.clone().context("a selector without a metric name")?;
    let matchers = vector.matchers.matchers.iter();
    let regexps = matchers.filter(|matcher| matches!(matcher.op, MatchOp::Re(_)));
    let regexps = regexps.map(|matcher| (matcher.name.clone(), matcher.value.clone())).collect();
    Ok(Selector { metric, regexps, range, function })
}

#[test]
fn selectors_are_found_in_all_expressions() {
    let found =
        selectors(r#"sum by (a) (rate(x_total{job=~"j"}[1m])) / (up > 0) or max_over_time(y[5m:5s])"#);
    let found = found.unwrap();
    let metrics: Vec<_> = found.iter().map(|selector| selector.metric.as_str()).collect();
    assert_eq!(metrics, ["x_total", "up", "y"]);
    assert_eq!((found[0].function, found[1].function), (Some("rate"), None));
    assert_eq!(found[0].range, Some(Duration::from_secs(60)));
    assert_eq!(found[0].regexps, [("job".to_owned(), "j".to_owned())]);
}

#[test]
fn invalid_promql_is_an_error() {
    assert!(selectors("sum by (up").is_err());
    assert!(selectors(r#"{job="a"}"#).is_err());
}
