//! What must not compile, beside what does, so that each fails for its own reason.

/// The right way: it compiles.
///
/// ```
/// # use device_flow::server::{Exchange, Next, Reply, Unavailable};
/// fn host(mut exchange: Exchange<'_, Reply>) {
///     if let Next::Load(_, ask) = exchange.next() {
///         ask.answer(Ok(None));
///     }
///     let _ = exchange.next();
/// }
/// ```
///
/// A wrong answer: a load is not answered with what a write says.
///
/// ```compile_fail,E0308
/// # use device_flow::server::{Exchange, Next, Reply, Write};
/// fn host(mut exchange: Exchange<'_, Reply>) {
///     if let Next::Load(_, ask) = exchange.next() {
///         ask.answer(Ok(Write::Committed));
///     }
/// }
/// ```
///
/// Two answers.
///
/// ```compile_fail,E0382
/// # use device_flow::server::{Exchange, Next, Reply};
/// fn host(mut exchange: Exchange<'_, Reply>) {
///     if let Next::Load(_, ask) = exchange.next() {
///         ask.answer(Ok(None));
///         ask.answer(Ok(None));
///     }
/// }
/// ```
///
/// Two questions at once.
///
/// ```compile_fail,E0499
/// # use device_flow::server::{Exchange, Next, Reply};
/// fn host(mut exchange: Exchange<'_, Reply>) {
///     let first = exchange.next();
///     let second = exchange.next();
///     drop((first, second));
/// }
/// ```
///
/// An ask kept for later, while the exchange goes on.
///
/// ```compile_fail,E0499
/// # use device_flow::server::{Exchange, Next, Reply};
/// fn host(mut exchange: Exchange<'_, Reply>) {
///     let mut kept = None;
///     if let Next::Load(_, ask) = exchange.next() {
///         kept = Some(ask);
///     }
///     let _ = exchange.next();
///     if let Some(ask) = kept {
///         ask.answer(Ok(None));
///     }
/// }
/// ```
///
/// An ask that outlives its exchange.
///
/// ```compile_fail,E0515
/// # use device_flow::server::{Ask, Exchange, Next, Reply, Stored};
/// fn keep<'x>(mut exchange: Exchange<'x, Reply>) -> Option<Ask<'x, Stored>> {
///     match exchange.next() {
///         Next::Load(_, ask) => Some(ask),
///         _ => None,
///     }
/// }
/// ```
struct WhatMustNotCompile;
