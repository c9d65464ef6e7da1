"""Cases of parametrised tests that only `make test-slow` runs, because another case takes the same path in `make test`.

A test that is slow as a whole has the mark `slow` and its reason where it stands.
"""

from __future__ import annotations

SHOTS = "extractors/video/test_shots.py::test_"
EDITS = "extractors/faces/test_edits.py::test_"
CROPS = "extractors/faces/test_crops.py::test_static_crops_of_real_clips_are_level_of_one_size_and_whole"
OPINION = "extractors/faces/test_second_opinion.py::test_what_the_first_detector_falls_for_is_refused_by_the_second"
SECOND = "extractors/faces/test_second_opinion.py::test_"
TRACK = "extractors/faces/test_track.py::test_"
FLOW = "extractors/optical_flow/test_agreement.py::test_"
GRID = "extractors/video/test_grid.py::test_"
CORES = "extractors/preparation/test_many_cores.py::test_"
CHANGES = "extractors/video/test_changes_on_the_way.py::test_"
LIMITS = "extractors/preparation/test_limits.py::test_lack_of_memory_is_too_large_however_the_decoder_takes_it"
GPU = "extractors/optical_flow/test_gpu_source.py::test_"
TRAINING = "fusion/training/test_train.py::test_"
ERASING = "storage/maintenance/test_erasing.py::test_"
MAINTENANCE = "storage/maintenance/test_maintenance.py::test_"
UPGRADING = "storage/maintenance/test_upgrading.py::test_"
FLIPS = "storage/maintenance/test_bit_flips.py::test_"
SHARDS = "storage/shards/test_store.py::test_"
REMOTE = "storage/files/test_remote.py::test_"
FULL_DISK = "storage/files/test_full_disk.py::test_"
SERVER = "flows/session/test_server.py::test_"

SLOW_CASES = {
    "longer shots and dissolves, more blank frames of other greys and flashes of other strengths": (
        *(f"{SHOTS}hard_cuts_between_two_scenes_are_found[{length}]" for length in (25, 60)),
        *(f"{SHOTS}a_dissolve_is_one_cut_of_several_frames[{frames}]" for frames in (12, 25)),
        *(f"{SHOTS}a_flash_is_no_cut[{case}]" for case in ("1.7-2", "1.7-5", "4.0-1", "4.0-5", "100.0-1", "100.0-2")),
        *(
            f"{SHOTS}nothing_continues_through_blank_frames_and_after_many_begins_another_shot[{frames}-{level}]"
            for frames, level in ((1, 128), (1, 255), (2, 128), (2, 255), (5, 128), (5, 255), (7, 128), (20, 255))
        ),
        *(
            f"{SHOTS}missing_frames_of_slow_sources_are_no_cuts[{case}]"
            for case in ("same object-8", "same object-12.5", "encoded again-5", "encoded again-8")
        ),
        f"{SHOTS}a_head_that_turns_away_fast_is_no_cut[5.0]",
        *(f"{EDITS}drawn_cameras_at_both_sides_of_one_person_take_turns[{seconds}]" for seconds in (2, 2.8, 3.5, 5)),
        f"{EDITS}a_drawn_glance_at_another_person_belongs_to_no_window[4]",
        *(
            f"{EDITS}a_drawn_dissolve_is_one_cut_and_belongs_to_no_window[{case}]"
            for case in ("red-10", "blue-10", "blue-20")
        ),
        *(
            f"{EDITS}drawn_blank_frames_belong_to_no_window[{frames}-{level}]"
            for frames, level in ((2, 128), (2, 255), (5, 0), (5, 128), (5, 255), (20, 0), (20, 128))
        ),
    ),
    "more recordings of the same kind": (
        *(f"{CROPS}[{clip}]" for clip in ("98fnGDVky00.005", "9KAqOrdiZ4I.002", "OWZ-qVZG14A.002", "xHb5_bc1JOA.000")),
        f"{OPINION}[no_face_cartoon.mp4-settings2]",
        f"{OPINION}[no_face_rotated180_vfr.mp4-settings3]",
        f"{SECOND}people_on_difficult_recordings_are_kept_by_a_margin[two_faces_720p]",
        f"{SECOND}every_real_clip_is_confirmed_on_nearly_all_its_pictures[fi_v2]",
        f"{TRACK}of_two_people_on_film_one_is_followed_throughout[two_faces_720p.mp4]",
        f"{TRACK}recordings_without_a_face_are_refused[no_face_cartoon.mp4-no_face]",
        f"{TRACK}recordings_without_a_face_are_refused[no_face_rotated180_vfr.mp4-low_coverage]",
        f"{GRID}opencv_shows_the_same_pictures_at_the_same_times[single_face.mp4]",
        *(f"{FLOW}error_on_middlebury_is_that_of_opencv[{name}-cpu]" for name in ("Dimetrodon", "Venus")),
    ),
    "one core, as in all other tests": (
        f"{CORES}a_720p_video_is_prepared_with_few_threads_and_little_memory[1]",
        f"{CORES}a_clip_of_a_person_is_prepared_within_the_least_limit[1]",
        f"{CORES}the_limit_of_memory_means_the_same[1]",
    ),
    "larger pictures, another change of a file at work": (
        *(
            f"{CHANGES}a_change_of_size_keeps_every_frame_and_all_proportions[second3-{kinds}]"
            for kinds in ("ii", "ip", "pi")
        ),
        "extractors/video/test_digests.py::"
        "test_a_video_that_changes_between_scan_and_decoding_is_refused_as_changed[truncate]",
    ),
    "decoders that lack memory in the same way": (
        f"{LIMITS}[a.webm-libvpx]",
        f"{LIMITS}[a.avi-mpeg4]",
        f"{LIMITS}[a.mkv-ffv1]",
    ),
    "other networks, precisions, GPUs and filters, which the code under test treats alike": (
        "extractors/static/test_applications.py::test_vectors_are_the_pooled_outputs_of_the_network[densenet121]",
        "extractors/static/test_applications.py::"
        "test_keras_looks_for_the_weights_where_they_are_fetched_to[efficientnetv2b0]",
        "extractors/static/test_extractor.py::"
        "test_features_are_the_same_bits_in_batches_of_any_size_and_beside_any_neighbours[bfloat16]",
        "extractors/networks/test_batches.py::"
        "test_extractor_gives_the_same_bits_in_the_batches_that_fit_and_remembers_them[i3d_extractor]",
        f"{GPU}kernels_on_a_cpu_give_the_numbers_of_the_cpu_engine[median 3]",
        f"{GPU}kernels_on_a_cpu_give_the_numbers_of_the_cpu_engine[median 1]",
        f"{GPU}nvrtc_compiles_the_kernels_and_keeps_them[sm_80-gpu0-3]",
        f"{GPU}nvrtc_compiles_the_kernels_and_keeps_them[sm_100-gpu2-3]",
    ),
    "trainings of the other form, loss or world": (
        f"{TRAINING}planted_traits_are_learned_on_people_never_seen[vector-mae]",
        f"{TRAINING}scores_are_those_of_the_models_own_call_whatever_its_weights[vector]",
        "fusion/training/test_bilinear.py::"
        "test_traits_choose_together_if_people_are_few_and_apart_if_there_are_many[20-world1--0.03]",
        *(
            f"fusion/model/test_inputs.py::test_inputs_that_fit_are_taken[{case}]"
            for case in (
                *("vector-fit", "vector-train_on_batch", "vector-test_on_batch"),
                *("sequence-train_on_batch", "bilinear-train_on_batch"),
            )
        ),
    ),
    "more people, on whom a statistic errs less than on a few": (
        "fusion/uncertainty/test_intervals.py::test_coverage_of_one_clip_of_one_more_person_is_88_to_92_percent[100-40]",
        "fusion/evaluation/test_statistics.py::test_measures_on_folds_are_those_on_the_population[100]",
    ),
    "the page with a narrow window, whose parts are those of the wide one": (
        *(
            f"flows/report/test_page.py::test_axe_finds_no_serious_fault[{case}]"
            for case in ("narrow", "narrow and dark")
        ),
    ),
    "another fault of the same start; another of Prefect's own sources of settings": (
        f"{SERVER}a_server_of_our_own_that_does_not_start_says_why[home]",
        f"{SERVER}what_is_said_of_a_dead_server_names_the_place_where_it_was_named[.env]",
    ),
    "eight machines are eight processes with other names": (
        "system/test_many_runs.py::test_eight_processes_do_each_video_once_and_take_over_from_one_that_is_killed"
        "[short intervals-on eight machines]",
    ),
    "files damaged in other ways, seen by the same digest": (
        "flows/demo/test_corpus.py::test_damaged_corpus_is_rendered_afresh[clip missing]",
        "flows/demo/test_corpus.py::test_damaged_corpus_is_rendered_afresh[labels changed]",
    ),
    "formats and kinds of storage are independent of each other; kills at other places": (
        *(f"{ERASING}nothing_of_a_person_is_left_in_any_byte[{case}]" for case in ("hdf5-s3", "parquet-local")),
        *(
            f"{ERASING}{name}[{case}]"
            for name in ("erasing_refuses_beside_a_live_run", "models_that_were_trained_on_a_person_are_named")
            for case in ("hdf5-s3", "parquet-s3", "hdf5-local")
        ),
        *(
            f"{ERASING}{name}[{format}-s3]"
            for name in (
                "names_that_no_table_and_no_shard_holds_are_told_and_remove_nothing",
                "a_video_that_only_the_shard_of_a_killed_writer_holds_is_erased",
                "damaged_shards_are_erased_as_a_whole",
            )
            for format in ("hdf5", "parquet")
        ),
        f"{ERASING}files_and_folders_of_others_within_the_store_stop_nothing[hdf5-local]",
        *(f"{ERASING}a_killed_erasure_continues[hdf5-{call}-local]" for call in (4, 9, 14, 30)),
        *(f"{ERASING}a_killed_erasure_continues[parquet-{call}-local]" for call in (9, 14, 22, 30, 40)),
        *(
            f"{MAINTENANCE}{name}[hdf5-s3]"
            for name in (
                "verify_names_just_the_damaged_files_and_repair_leaves_the_rest",
                "vanished_shard_is_reported_and_repair_has_its_videos_extracted_again",
                "merged_shards_stay_within_the_target",
                "of_two_that_merge_the_same_shards_one_does_and_nothing_is_doubled",
                "merging_keeps_every_video_and_the_newest_rows_of_each",
                "damaged_source_is_named_and_everything_stays",
                "survey_counts_what_readers_get",
                "superseded_rows_of_large_shards_are_reclaimed",
            )
        ),
        *(
            f"{MAINTENANCE}{name}[parquet-s3]"
            for name in (
                "manifest_that_is_gone_is_reported_and_written_again_and_its_shards_are_no_garbage",
                "vanished_shard_is_reported_and_repair_has_its_videos_extracted_again",
                "merged_shards_stay_within_the_target",
                "merged_shard_hides_nothing_that_is_written_meanwhile",
                "damaged_source_is_named_and_everything_stays",
            )
        ),
        f"{MAINTENANCE}manifest_that_is_gone_is_reported_and_written_again_and_its_shards_are_no_garbage[hdf5-s3]",
        f"{MAINTENANCE}converting_there_and_back_loses_nothing[parquet-s3-float16]",
        *(
            f"{MAINTENANCE}converting_there_and_back_loses_nothing[{case}]"
            for case in ("hdf5-s3-float16", "hdf5-s3-float32", "parquet-s3-float32", "parquet-local-float16")
        ),
        f"{MAINTENANCE}readers_find_every_video_once_while_shards_are_merged_and_converted[hdf5-local]",
        f"{MAINTENANCE}random_videos_survive_any_order_of_writing_merging_and_converting[hdf5]",
        "system/test_many_runs.py::test_kill_at_any_instant_loses_and_doubles_nothing[10-hdf5]",
        *(
            f"{UPGRADING}{name}[s3]"
            for name in (
                "a_second_upgrade_does_nothing",
                "new_features_come_after_those_brought_over",
                "damaged_files_go_to_quarantine_and_the_rest_comes_over",
            )
        ),
        *(f"{UPGRADING}old_store_is_refused_in_one_line[s3-{part}]" for part in ("failures", "seen", "scores")),
        *(
            f"{SHARDS}{name}[hdf5-s3]"
            for name in (
                "video_in_two_shards_is_shown_once_and_the_newest_bytes_win",
                "shard_that_is_gone_is_reported_with_its_videos_and_hides_no_other",
                "reader_goes_on_with_what_was_there_when_it_began",
                "families_are_kept_apart_and_described_in_clear",
                "done_names_each_video_with_the_bytes_that_it_was_made_from",
                "commit_of_several_families_is_seen_as_a_whole",
                "machine_whose_clock_is_slow_still_supersedes_what_is_there",
                "videos_that_are_not_there_are_passed_over",
            )
        ),
        *(
            f"{SHARDS}real_shapes_come_back_whole_and_one_by_one[{format}-s3-{family}-]"
            for format in ("hdf5", "parquet")
            for family in ("dynamic", "faces")
        ),
        *(
            f"{REMOTE}put_that_breaks_off_leaves_nothing_and_the_next_one_succeeds[{case}]"
            for case in ("0.4-one put", "0.0-a put in parts", "0.999-a put in parts")
        ),
        *(
            f"{FULL_DISK}disk_of_every_size_is_said_to_be_full_and_a_larger_one_is_gone_on_with[{case}]"
            for case in ("bytes-hdf5", "files-parquet")
        ),
        f"{FULL_DISK}run_goes_on_where_the_disk_was_full_once_there_is_room[hdf5]",
        *(
            f"{FLIPS}every_flipped_bit_that_changes_what_a_reader_gets_is_caught[{case}-a few]"
            for case in ("parquet-float32", "hdf5-float16")
        ),
    ),
}
