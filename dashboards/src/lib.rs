//! Reads the dashboards and rules of a flash sale.
