//! An endpoint that keeps objects in memory and, like some that are to be had, takes `If-None-Match` for a hint.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;

/// What is wrong with it.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    /// It creates what is there.
    Overwrites,
    /// It answers with so many bytes, whatever is asked for.
    Floods,
    /// It says that the object's range has no end.
    Endless,
}

/// Serves until the runtime ends.
pub(crate) async fn serve(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let objects: Arc<Mutex<HashMap<String, Bytes>>> = Arc::default();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let objects = Arc::clone(&objects);
            let service = service_fn(move |request| answer(Arc::clone(&objects), fault, request));
            tokio::spawn(async move {
                let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

async fn answer(
    objects: Arc<Mutex<HashMap<String, Bytes>>>,
    fault: Fault,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let key = parts.uri.path().to_owned();
    let mut objects = objects.lock().unwrap();
    let builder = Response::builder().header("etag", "\"1\"").header("last-modified", "Thu, 26 Nov 2026 12:00:00 GMT");
    let said = |status: StatusCode, body: Bytes| Ok(Response::builder().status(status).body(Full::new(body)).unwrap());
    match (parts.method, fault) {
        (Method::GET, Fault::Floods) if objects.contains_key(&key) => {
            let flood = Bytes::from(vec![0; 16 << 20]);
            Ok(builder.status(206).header("content-range", "bytes 0-63/64").body(Full::new(flood)).unwrap())
        }
        (Method::GET, Fault::Endless) if objects.contains_key(&key) => {
            let range = "bytes 0-18446744073709551615/18446744073709551615";
            Ok(builder.status(206).header("content-range", range).body(Full::new(Bytes::new())).unwrap())
        }
        (Method::PUT, fault) => {
            let there = objects.contains_key(&key);
            if there && !matches!(fault, Fault::Overwrites) {
                return said(StatusCode::PRECONDITION_FAILED, Bytes::new());
            }
            objects.insert(key, body);
            Ok(builder.body(Full::new(Bytes::new())).unwrap())
        }
        (Method::GET, _) => match objects.get(&key) {
            Some(object) => {
                let range = format!("bytes 0-{}/{}", object.len() - 1, object.len());
                Ok(builder.status(206).header("content-range", range).body(Full::new(object.clone())).unwrap())
            }
            None => said(StatusCode::NOT_FOUND, Bytes::new()),
        },
        (Method::DELETE, _) => {
            objects.remove(&key);
            said(StatusCode::NO_CONTENT, Bytes::new())
        }
        _ => said(StatusCode::NOT_FOUND, Bytes::new()),
    }
}
