"""The two readers that are known without importing nnunetv2 are those that nnunetv2 would choose."""

from nnunet_covid.nnunet.segmentation_readers import COMMON_READERS, reader_names, readers_by_ending


def test_the_common_readers_are_nnunets_first_choice():
    by_ending = readers_by_ending()
    assert {ending: by_ending[ending] for ending in COMMON_READERS} == COMMON_READERS


def test_every_reader_of_an_ending_has_a_name():
    assert set(readers_by_ending().values()) <= reader_names()
