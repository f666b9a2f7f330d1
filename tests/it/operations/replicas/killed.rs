//! One replica after the other killed with -9 under load.

use portcullis::oauth::secret::random_bytes;

use super::fleet::{Fleet, REPLICAS, a_moment};
use super::load::{Load, Met, redeem_patiently};
use crate::harness::client::McpClient;
use crate::laws::races::rounds;
use crate::operations::crashes::assert_sound;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and processes: scripts/test-replicas"]
async fn a_replica_that_is_killed_loses_no_login_and_leaves_nothing_half_done() {
    let mut fleet = Fleet::start().await;
    let client = McpClient::register(&fleet).await;
    let load = Load::begin(&fleet, &client, 12, 5).await;
    let (mut codes, mut burnt, mut met) = (0, 0, Met::default());
    let kills = 12 * rounds().len();
    for kill in 0..kills {
        let ours = [client.code("alice").await, client.code("alice").await];
        let [first, second] = ours.each_ref().map(|code| redeem_patiently(&fleet, &client, code));
        let victim = &fleet.replicas[kill % REPLICAS];
        let killing = async {
            a_moment(u64::from(random_bytes::<1>()[0]) / 16).await;
            victim.kill_now();
        };
        let (first, second, ()) = tokio::join!(first, second, killing);
        for (came, theirs) in [first, second] {
            codes += 1;
            if came.status != 200 {
                // The answer was lost with the replica: the replay ends what it had become.
                assert_eq!((came.status, &came.body["error"]), (400, &"invalid_grant".into()));
                assert!(theirs.no_answer > 0, "{}", came.body);
                burnt += 1;
            }
            met = met.and(&theirs);
        }
        assert_sound(&fleet.database, &format!("kill {kill}")).await;
        a_moment(100).await;
        fleet.replicas[kill % REPLICAS].kill();
        fleet.replicas[kill % REPLICAS].launch();
    }
    let (loads, tokens) = load.end().await;
    for token in tokens {
        client.refresh(&token).await.assert_status(200);
    }
    assert_sound(&fleet.database, "the kills").await;
    println!("{kills} kills, {codes} codes, {burnt} of them used up by an answer that was lost");
    println!("clients met {:?}", loads.and(&met));
}
