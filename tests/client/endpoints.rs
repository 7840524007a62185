//! Endpoints: to which URLs a request may go (M3).

use device_flow::client::{EndpointError, Endpoints};
use device_flow::wire::metadata::UrlError;

use crate::support::{DEVICE, TOKEN, endpoints};

#[test]
fn t4_endpoints_that_must_not_be_used_make_no_client() {
    let fault = |endpoints: Result<Endpoints, EndpointError>| match endpoints.unwrap_err() {
        EndpointError::Url { endpoint, why, .. } => (endpoint, why),
        other => panic!("{other:?}"),
    };
    let plain = Endpoints::new("http://as.example/device", TOKEN);
    assert_eq!(
        fault(plain),
        ("device_authorization_endpoint", UrlError::Plain)
    );
    let fragment = Endpoints::new(DEVICE, "https://as.example/token#x");
    assert_eq!(fault(fragment), ("token_endpoint", UrlError::Fragment));
    let revocation = endpoints().revocation("as.example");
    assert_eq!(
        fault(revocation),
        ("revocation_endpoint", UrlError::Malformed)
    );
    assert!(Endpoints::new("http://localhost:8080/device", "http://127.0.0.1/token").is_ok());
}
