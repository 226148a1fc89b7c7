"""`./dev sbom`: a CycloneDX bill of what running redrive needs, the same bytes for the same lock."""

import sys
from importlib.metadata import distribution
from typing import Final

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from redrive import __version__
from supply.lock import Pinned, declared, runtime

_LONGEST_NAME: Final = 64  # what is longer is the text of a license and not its name


def bill() -> str:
    """The bill as JSON."""
    pinned = runtime()
    components = {name: _component(each) for name, each in pinned.items()}
    ours = Component(
        type=ComponentType.APPLICATION,
        name="redrive",
        version=__version__,
        bom_ref="redrive",
        licenses=_licenses("redrive"),
    )
    bom = Bom(components=components.values(), metadata=BomMetaData(component=ours))
    bom.register_dependency(ours, [components[each.name] for each in declared()])
    for name, each in pinned.items():
        bom.register_dependency(components[name], [components[need] for need in each.needs])
    # Both would differ each time, and the format does without them.
    bom.serial_number = None  # type: ignore[assignment] # typed as if there always were one
    bom.metadata.timestamp = None  # type: ignore[assignment] # as above
    return JsonV1Dot6(bom).output_as_string(indent=2) + "\n"


def _component(pinned: Pinned) -> Component:
    purl = PackageURL("pypi", name=pinned.name, version=pinned.version)
    files = ExternalReference(
        type=ExternalReferenceType.DISTRIBUTION,
        url=XsUri(str(purl)),
        comment="any of the files with these hashes",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=each) for each in pinned.hashes],
    )
    return Component(
        type=ComponentType.LIBRARY,
        name=pinned.name,
        version=pinned.version,
        purl=purl,
        bom_ref=str(purl),
        external_references=[files],
        licenses=_licenses(pinned.name),
    )


def _licenses(name: str) -> list[License]:
    """As its metadata say: the expression; where there is none a short name; else its classifiers."""
    said = distribution(name).metadata
    [text] = [said[field] for field in ("License-Expression", "License") if field in said][:1] or [""]
    if text and len(text) <= _LONGEST_NAME and text.isprintable():
        return [LicenseFactory().make_from_string(text)]
    classified = [each for each in said.get_all("Classifier", []) if each.startswith("License :: ")]
    return [LicenseFactory().make_with_name(each.rpartition(" :: ")[2]) for each in classified]


if __name__ == "__main__":
    sys.stdout.write(bill())
