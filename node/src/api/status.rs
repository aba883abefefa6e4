//! Where a statement is, now or after waiting for it.

use std::time::{Duration, Instant};

use stele_types::exchange::{Progress, StatementStatus};
use stele_types::{Height, StatementId};

use super::backend::{Backend, BackendError};
use super::parameters::Wait;
use super::problem::Problem;
use super::router::State;

/// Where a statement is.
pub(super) fn status(backend: &dyn Backend, id: StatementId) -> Result<StatementStatus, BackendError> {
    let mut executed = backend.executed(&id)?;
    let mut pending = false;
    if executed.is_none() {
        pending = backend.is_pending(&id);
        if !pending {
            // It may have left the queue for a block between the two looks.
            executed = backend.executed(&id)?;
        }
    }
    let Some(executed) = executed else {
        let progress = pending.then_some(Progress::Pending);
        return Ok(StatementStatus { statement: id, progress, height: None, position: None, code: None, index: None });
    };
    let height = Height(executed.location.height());
    let certified = height <= backend.standing().certified;
    Ok(StatementStatus {
        statement: id,
        progress: Some(if certified { Progress::Certified } else { Progress::Executed }),
        height: Some(height),
        position: Some(executed.location.position()),
        code: Some(executed.code),
        index: executed.index,
    })
}

/// Where a statement is, for somebody who waits until its outcome is certified. One that waits here for a block is not
/// looked for among the executed ones: when it leaves the queue its block is executed, and the next block certifies it.
fn status_on_the_way(backend: &dyn Backend, id: StatementId) -> Result<StatementStatus, BackendError> {
    if !backend.is_pending(&id) {
        return status(backend, id);
    }
    let progress = Some(Progress::Pending);
    Ok(StatementStatus { statement: id, progress, height: None, position: None, code: None, index: None })
}

/// Where many statements are, once each has come as far as `wait` asks, or its time is over.
pub(super) async fn statuses(
    state: &State,
    ids: Vec<StatementId>,
    wait: Wait,
) -> Result<Vec<StatementStatus>, Problem> {
    let deadline = Instant::now() + wait.time;
    let mut standing = state.backend.standing().height;
    let waits = wait.target == Progress::Certified && !wait.time.is_zero();
    let mut found = look(state, ids, waits).await?;
    loop {
        certify(&mut found, state.backend.standing().certified);
        let reached = |status: &StatementStatus| status.progress >= Some(wait.target);
        let open: Vec<usize> = (0..found.len()).filter(|index| !reached(&found[*index])).collect();
        if open.is_empty() || Instant::now() >= deadline || !next_block(state, standing, deadline).await {
            return Ok(found);
        }
        standing = state.backend.standing().height;
        // What was executed can only become certified, which its height tells.
        let open: Vec<usize> = open.into_iter().filter(|index| found[*index].height.is_none()).collect();
        let again = look(state, open.iter().map(|index| found[*index].statement).collect(), waits).await?;
        for (index, status) in open.into_iter().zip(again) {
            found[index] = status;
        }
    }
}

/// Where one statement is, as [`statuses`].
pub(super) async fn status_after(state: &State, id: StatementId, wait: Wait) -> Result<StatementStatus, Problem> {
    let found = statuses(state, vec![id], wait).await?.pop();
    Ok(found.unwrap_or(StatementStatus {
        statement: id,
        progress: None,
        height: None,
        position: None,
        code: None,
        index: None,
    }))
}

/// Waits for a block above `height`; false when the deadline came first.
pub(super) async fn next_block(state: &State, height: Height, deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(Instant::now());
    tokio::time::timeout(left, state.backend.advanced(height)).await.is_ok()
}

/// How often a result that waits for a signature of the node, not for a block, is looked for again.
pub(super) const SEAL_INTERVAL: Duration = Duration::from_millis(20);

fn certify(found: &mut [StatementStatus], certified: Height) {
    for status in found.iter_mut().filter(|status| status.height.is_some_and(|height| height <= certified)) {
        status.progress = Some(Progress::Certified);
    }
}

async fn look(state: &State, ids: Vec<StatementId>, waits: bool) -> Result<Vec<StatementStatus>, Problem> {
    let where_is = if waits { status_on_the_way } else { status };
    state.read(move |backend| ids.into_iter().map(|id| where_is(backend, id)).collect()).await
}
