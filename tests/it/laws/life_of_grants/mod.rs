//! The whole life of grants: random sequences of everything that can happen to one, against a model and
//! against these safety invariants (P6). After every step the database is read:
//!
//! - (a) a grant exists only for a code, and a code only for a login that was approved and that came
//!   back in the browser that approved;
//! - (b) a code succeeds at most once;
//! - (c) a family has at most one refresh token that was not used, and each token one successor;
//! - (d) a grant that has ended stays ended and mints nothing, and no code outlives a sign-out;
//! - (e) a grant is for the resource, client and person of its consent;
//! - (f) its scopes never grow.
//!
//! And the other way round: what ought to work does, and no grant ends without a reason. A sequence
//! that fails is shrunk. `PROPTEST_CASES=1000` runs more sequences, `PROPTEST_RNG_SEED` repeats a run.

mod model;
mod world;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use model::{How, Op};
use world::World;

/// Sequences of one run.
const CASES: u32 = 50;
/// Steps of one sequence.
const STEPS: usize = 60;

/// Which of the things at hand, counted from the latest.
fn which() -> impl Strategy<Value = usize> {
    prop_oneof![3 => Just(0_usize), 2 => 1..4_usize, 1 => 0..50_usize]
}

fn how() -> impl Strategy<Value = How> {
    prop_oneof![
        6 => Just(How::Right),
        1 => Just(How::OtherClient),
        1 => Just(How::WrongVerifier),
        1 => Just(How::OtherRedirectUri),
        1 => Just(How::OtherResource),
    ]
}

fn wait() -> impl Strategy<Value = i64> {
    const DAY: i64 = 24 * 3600;
    prop_oneof![
        6 => 1..130_i64,
        2 => prop::sample::select(vec![59_i64, 60, 61, 119, 120, 121, 599, 600, 899, 900]),
        2 => prop::sample::select(vec![3600, DAY - 1, DAY, DAY + 1, 3 * DAY, 5 * DAY]),
        1 => prop::sample::select(vec![-1_i64, -4, -6, -60, -3600]),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let two = || 0..2_usize;
    prop_oneof![
        2 => two().prop_map(Op::Register),
        3 => (two(), two(), 1..8_u8).prop_map(|(client, resource, scopes)| Op::Ask { client, resource, scopes }),
        4 => which().prop_map(Op::Approve),
        1 => which().prop_map(Op::Deny),
        4 => (which(), prop::bool::weighted(0.8), two(), two(), 0..8_u8).prop_map(
            |(login, same_browser, person, sid, allowed)| Op::Callback { login, same_browser, person, sid, allowed }
        ),
        6 => (which(), how()).prop_map(|(code, how)| Op::Redeem { code, how }),
        6 => (two(), two(), two(), two()).prop_map(
            |(client, resource, person, sid)| Op::Connect { client, resource, person, sid }
        ),
        12 => which().prop_map(Op::Refresh),
        2 => which().prop_map(Op::Revoke),
        1 => two().prop_map(Op::BlockClient),
        2 => two().prop_map(Op::UnblockClient),
        1 => two().prop_map(Op::BlockPerson),
        2 => two().prop_map(Op::UnblockPerson),
        1 => two().prop_map(Op::SignOut),
        1 => (two(), two()).prop_map(|(person, sid)| Op::EndSession { person, sid }),
        1 => (two(), two()).prop_map(|(person, sid)| Op::LogoutToken { person, sid }),
        2 => Just(Op::Sweep),
        8 => wait().prop_map(Op::Wait),
        1 => Just(Op::Restart),
    ]
}

#[test]
fn p6_no_sequence_of_steps_breaks_a_safety_invariant() {
    let cases = std::env::var("PROPTEST_CASES").map_or(CASES, |cases| cases.parse().unwrap());
    let config =
        Config { cases, failure_persistence: None, max_shrink_iters: 400, ..Config::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let grace = prop::sample::select(vec![0_u64, 60, 120]);
    let sequences = (grace, prop::collection::vec(op(), 1..STEPS));
    let ran = TestRunner::new(config).run(&sequences, |(grace, ops)| {
        runtime.block_on(async {
            let mut world = World::new(grace).await;
            for op in &ops {
                world.step(op).await?;
                world.check_invariants(op).await?;
            }
            world.end().await;
            Ok(())
        })
    });
    ran.unwrap_or_else(|broken| panic!("{broken}"));
}

/// A code of before a sign-out is worth nothing, also when the person comes back within its minute: the
/// same session at the provider lives again, the code does not.
#[tokio::test]
async fn p6_a_code_does_not_outlive_a_sign_out_that_is_followed_by_a_sign_in() {
    let ask = Op::Ask { client: 0, resource: 0, scopes: 7 };
    let back = Op::Callback { login: 0, same_browser: true, person: 0, sid: 0, allowed: 7 };
    for end in [
        Op::SignOut(0),
        Op::BlockPerson(0),
        Op::EndSession { person: 0, sid: 0 },
        Op::LogoutToken { person: 0, sid: 0 },
    ] {
        let mut world = World::new(60).await;
        for op in [
            Op::Register(0),
            ask.clone(),
            Op::Approve(0),
            back.clone(),
            end,
            Op::UnblockPerson(0),
            ask.clone(),
            Op::Approve(0),
            back.clone(),
            Op::Redeem { code: 1, how: How::Right },
            Op::Redeem { code: 0, how: How::Right },
        ] {
            world.step(&op).await.unwrap();
            world.check_invariants(&op).await.unwrap();
        }
        world.end().await;
    }
}
