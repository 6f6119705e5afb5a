//! Parameters that several operations share.

#![expect(dead_code, reason = "these types only describe others and are never constructed")]

use utoipa::IntoParams;

use super::schemas::{CsrfToken, SaleId};

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(super) struct CorrelationId {
    /// Id of the request. It is logged, stored with the order and sent back. A value that is not 1 to 64 visible ASCII
    /// characters is replaced.
    #[param(rename = "X-Correlation-Id", required = false)]
    id: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct Sale {
    /// Id of the sale.
    sale: SaleId,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(crate) struct IdempotencyKey {
    /// Names the attempt. When a purchase that was made is repeated with the same key, the response is 200 with the same
    /// order id again, not 409. An empty key is none.
    #[param(rename = "Idempotency-Key", required = false, pattern = "^[!-~]{0,255}$", example = "6f0ad8a2")]
    key: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(crate) struct OptionalCsrfHeader {
    /// The same token as in the cookie. It is required when the request has cookies and the browser does not show by
    /// `Sec-Fetch-Site` or `Origin` that a page of this site sent it. A token that is sent must be valid.
    #[param(rename = "X-CSRF-Token", required = false)]
    token: CsrfToken,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Cookie)]
pub(crate) struct OptionalCsrfCookie {
    /// The token from `GET /api/csrf`.
    #[param(rename = "csrfToken", required = false)]
    token: CsrfToken,
}
