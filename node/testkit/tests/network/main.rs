//! Networks of real processes, in one program: each file would link the whole of client and engine again.

mod backups;
mod bad_input;
mod bodies;
mod cold_tier;
mod command_line_life;
mod copies;
mod damaged_stores;
mod fairness;
mod forwarding;
mod gpu;
mod idle_connections;
mod joining_by_snapshot;
mod joining_validator;
mod kill_all;
mod kill_one;
mod network_split;
mod paged_state;
mod power_loss;
mod quorum_lost;
mod refused_start;
mod reload;
mod state_commands;
mod tampered_state;
mod upgrade_height;
mod validators_change;
mod wiped_node;
