"""Tests of which each case is one trial of a promise; the other tests of promises note their own figures."""

COMMANDS, CHECKPOINT = "tests/test_command_line.py::", "tests/common/runs/test_checkpoint.py::"
FAMILY, LOGS = "tests/envs/test_gym_family.py::", "tests/persim/data/test_logs.py::"
FAULTS = "tests/persim/data/test_csv_faults.py::"
LEARNS_THE_SAME = "test_ranks_agree_with_one_rank_and_resume_bit_for_bit"
COUNTED = {
    "A2 one rank ends all": ["tests/mpi_utils/test_mpi.py::test_ranks_end_together"],
    "B8 folders that cannot be written": [
        "tests/common/runs/test_run_folder.py::test_a_folder_that_cannot_be_written_is_an_input_error",
        f"{COMMANDS}test_a_file_where_the_folder_should_be",
    ],
    "C1 resumed bit for bit": [
        f"{COMMANDS}test_resuming_is_bit_exact",
        "tests/rmdp/test_learner.py::test_a_loaded_learner_continues_bit_for_bit",
        "tests/persim/test_learner.py::test_a_loaded_learner_continues_bit_for_bit",
        "tests/caml/test_learner.py::test_a_loaded_learner_continues_bit_for_bit",
    ],
    "C2 other number of ranks": [
        f"{COMMANDS}test_another_number_of_ranks_continues_with_the_same_experiment",
        "tests/rmdp/test_ranks.py::test_any_number_of_ranks_learns_the_same",
        f"tests/persim/test_learner.py::{LEARNS_THE_SAME}",
        f"tests/caml/test_learner.py::{LEARNS_THE_SAME}",
        "tests/common/runs/test_seeding.py::test_rows_do_not_depend_on_the_number_of_ranks",
    ],
    "C5 other settings, formats, data refused": [
        f"{COMMANDS}test_another_experiment_in_the_folder_is_refused_field_by_field",
        "tests/common/runs/test_damage.py::test_a_newer_format_says_so",
        "tests/persim/test_learner.py::test_a_run_does_not_go_on_with_other_data",
    ],
    "C5 stored saves of format 1 load": ["tests/test_examples.py::test_an_example_reaches_its_figure"],
    "D3 shares of any size": [
        f"{COMMANDS}test_more_ranks_than_work",
        "tests/rmdp/test_ranks.py::test_extreme_sizes",
        "tests/common/runs/test_seeding.py::test_shares_cover_everything_once",
    ],
    "E1 broken environments refused": [
        f"{FAMILY}test_a_broken_environment_is_refused_in_one_line",
        f"{FAMILY}test_a_broken_family_is_refused_in_one_line",
        f"{FAMILY}test_a_broken_vector_environment_is_refused_in_one_line",
    ],
    "E2 faults of logs placed at line and column": [
        f"{FAULTS}test_a_fault_is_placed_at_line_and_column",
        f"{FAULTS}test_a_fault_of_the_header",
        f"{FAULTS}test_a_log_that_is_not_the_environments",
        f"{FAULTS}test_bytes_that_are_no_text",
        f"{LOGS}test_what_is_no_file",
    ],
    "E3 mistakes in flags": [f"{COMMANDS}test_a_mistake_gets_one_line_and_code_2"],
    "F1 hostile files of populations": ["tests/envs/test_population.py::test_hostile_files_are_refused"],
    "F2 source files scanned": ["tests/test_house.py::test_no_file_can_run_what_it_reads"],
    "F3 user code only where asked": [f"{COMMANDS}test_a_users_own_environment"],
    "G3 tables after kills": [
        "tests/common/runs/test_logger.py::test_a_resumed_table_has_no_gap_and_no_duplicate"
    ],
}
