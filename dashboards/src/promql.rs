//! What a query of Prometheus asks for: its selectors, wherever they stand in it.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use promql_parser::label::MatchOp;
use promql_parser::parser::{self, Expr, VectorSelector};

/// Series that a query asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    /// The name of the metric.
    pub metric: String,
    /// Labels that have to match an expression (`=~`), with the expression.
    pub regexps: Vec<(String, String)>,
    /// How far it looks back, where it asks for a range.
    pub range: Option<Duration>,
    /// The function it is handed to directly, where it is.
    pub function: Option<&'static str>,
}

/// All selectors of a query without variables.
///
/// # Errors
/// When it is no PromQL, or asks for series without naming a metric.
pub fn selectors(query: &str) -> anyhow::Result<Vec<Selector>> {
    let expr =
        parser::parse(query).map_err(|message| anyhow!("{message}")).with_context(|| query.to_owned())?;
    let mut found = Vec::new();
    collect(&expr, None, &mut found).with_context(|| query.to_owned())?;
    Ok(found)
}

/// Adds the selectors of `expr`, which is handed to `function`.
fn collect(expr: &Expr, function: Option<&'static str>, found: &mut Vec<Selector>) -> anyhow::Result<()> {
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
        Expr::Extension(_) => bail!("the parser makes none of these"),
    }
}

fn selector(
    vector: &VectorSelector,
    range: Option<Duration>,
    function: Option<&'static str>,
) -> anyhow::Result<Selector> {
    let metric = vector.name.clone().context("a selector without the name of a metric")?;
    let matchers = vector.matchers.matchers.iter();
    let regexps = matchers.filter(|matcher| matches!(matcher.op, MatchOp::Re(_)));
    let regexps = regexps.map(|matcher| (matcher.name.clone(), matcher.value.clone())).collect();
    Ok(Selector { metric, regexps, range, function })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_found_wherever_they_stand() {
        let found =
            selectors(r#"sum by (a) (rate(x_total{job=~"j"}[1m])) / (up > 0) or max_over_time(y[5m:5s])"#);
        let found = found.unwrap();
        let metrics: Vec<_> = found.iter().map(|selector| selector.metric.as_str()).collect();
        assert_eq!(metrics, ["x_total", "up", "y"]);
        assert_eq!(found[0].function, Some("rate"));
        assert_eq!(found[0].range, Some(Duration::from_secs(60)));
        assert_eq!(found[0].regexps, [("job".to_owned(), "j".to_owned())]);
        assert_eq!(found[1].function, None);
    }

    #[test]
    fn what_is_no_promql_is_an_error() {
        assert!(selectors("sum by (up").is_err());
        assert!(selectors(r#"{job="a"}"#).is_err());
    }
}
