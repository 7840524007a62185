//! The metadata that clients read, and whether the server does what they say.

use crate::support::server::*;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// Returns the document.
async fn metadata(server: &Running) -> Value {
    let path = "/.well-known/openid-configuration";
    crate::support::server::json(server.get(path).send().await.unwrap()).await
}

#[tokio::test]
async fn the_authorization_endpoint_refuses_to_people_and_to_clients_and_leads_nowhere() {
    let server = Running::new().await;
    let metadata = metadata(&server).await;
    assert_eq!(metadata["response_types_supported"], json!([]));
    let endpoint = text(&metadata, "authorization_endpoint");
    let query =
        "?response_type=code&client_id=client_cli&redirect_uri=https://evil.example/&state=x";
    for method in [Method::GET, Method::POST] {
        let ask = |accepted: &str| {
            let request = server
                .http
                .request(method.clone(), format!("{endpoint}{query}"));
            request.header("accept", accepted).send()
        };
        let response = ask("text/html,application/xhtml+xml,*/*;q=0.8")
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert_eq!(location(&response), None);
        assert!(response.headers().contains_key("content-security-policy"));
        let html = response.text().await.unwrap();
        assert!(html.contains("This server signs devices in"), "{html}");
        assert!(!html.contains("evil.example"));

        let response = ask("application/json").await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert_eq!(location(&response), None);
        let body = crate::support::server::json(response).await;
        assert_eq!(body["error"], "unsupported_response_type");
    }
    let counted = server.count("authorization", "response_type_unsupported");
    assert_eq!(counted.await, 4);
}
