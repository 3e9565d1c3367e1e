"""Changing the registry, and answering only when this server serves the change."""

from collections.abc import Sequence

import msgspec

from portoser.api.problems import Refused
from portoser.api.services import Services
from portoser.catalog.caller import Caller
from portoser.catalog.change import Change, PutTool
from portoser.catalog.errors import Conflict, Denied, Invalid, PortoserError, Problem, Unavailable
from portoser.catalog.policy import Role
from portoser.catalog.revision import Revision
from portoser.catalog.tool import GIT, REST, DesiredTool, Provenance, RegisteredTool
from portoser.registry.changes import Applied
from portoser.runtime.environments.required import Waiting, ungranted_packages
from sync.manifest import DeclaredTool

SECONDS_TO_FOLLOW = 10.0
SECONDS_FOR_PACKAGES = 60.0
"""How long a request waits for what its tool requires; they go on to be installed after it."""


async def applied(services: Services, changes: Sequence[Change], caller: Caller) -> Applied:
    """Apply ``changes`` as one transaction, and wait until the snapshot has them.

    Raises:
        Conflict: a name is taken, or the registry moved on.
        Unavailable: Postgres is away, or the change is applied and this server could not read it back in time.
    """
    try:
        done = await services.writer.apply(changes, caller=caller)
    except PortoserError as error:
        if type(error) is PortoserError:  # the database cannot hold it: what was sent is to blame
            raise Refused(422, str(error), code="invalid") from error
        raise
    await services.follower.at_least(done.generation, SECONDS_TO_FOLLOW)
    return done


async def admitted(services: Services, declared: DeclaredTool, *, owner: str) -> tuple[Revision, list[Problem]]:
    """The revision that a declaration becomes, imported in a worker, its examples run; and what to tell its author.

    ``owner`` is whose tool it is to be: the policy says which packages that may require.

    Raises:
        Invalid: what the code did wrong, or what it may not require.
        Unavailable: its packages are on their way, or cannot be had now.
    """
    warnings = list(declared.warnings)
    declaration = declared.declaration
    refused = ungranted_packages(services.follower.snapshot.policy, declared.name, declaration, owner=owner)
    if refused:
        raise Invalid(refused)
    [outcome] = await services.admission.admit(
        [(declared.name, declaration)], on_warning=warnings.append, patience=SECONDS_FOR_PACKAGES
    )
    if isinstance(outcome, Revision):
        return outcome, warnings
    if isinstance(outcome, Waiting):
        raise Unavailable(outcome[0].message, retry_after=outcome.retry_after)
    # Without a path, one of the examples is to blame.
    raise Invalid(msgspec.structs.replace(problem, path=problem.path or "examples") for problem in outcome)


def owner_of(existing: RegisteredTool | None, caller: Caller) -> str:
    """Whose tool it is that a caller writes: a tool keeps the owner who added it, whichever editor replaces it."""
    return existing.owner if existing is not None else f"{REST}{caller.subject}"


def refuse_what_another_was_granted(
    services: Services, declared: DeclaredTool, existing: RegisteredTool | None, caller: Caller
) -> None:
    """Whoever replaces another's tool writes code that runs with what the policy grants that other: admins may.

    Raises:
        Denied: the caller is no admin, and the tool uses powers or requires packages, or did.
    """
    if existing is None or existing.owner == owner_of(None, caller):
        return
    declaration, revision = declared.declaration, existing.revision
    if not (declaration.uses or declaration.requires or revision.uses or revision.requires):
        return
    if services.access.has_role(services.follower.snapshot, caller, Role.ADMIN):
        return
    raise Denied(
        f"The tool {existing.name!r} is of {existing.owner}, and what it uses and requires is granted to that owner: "
        f"replacing it takes the role {Role.ADMIN.value!r}. Add a tool of your own under another name."
    )


def put(
    name: str,
    revision: Revision,
    *,
    group: str | None,
    permissions: tuple[str, ...] | None,
    caller: Caller,
    existing: RegisteredTool | None,
) -> PutTool:
    """The change that makes a tool of ``revision``, or replaces the one that exists.

    A tool keeps the owner who added it, whichever editor replaces it; the audit log knows who did.
    """
    return PutTool(
        desired=DesiredTool(
            name=name,
            owner=owner_of(existing, caller),
            revision=revision,
            group=group,
            permissions=permissions,
            provenance=Provenance(source="rest", author=caller.name or caller.subject),
        ),
        expected_version=existing.version if existing is not None else None,
        expected_generation=existing.generation if existing is not None else None,
    )


def refuse_what_git_owns(tool: RegisteredTool, repository: str) -> None:
    """REST changes nothing that git declares.

    Raises:
        Conflict: it names repository, path and commit, so that one knows where to change it.
    """
    if not tool.owner.startswith(GIT):
        return
    provenance = tool.provenance
    commit = f" at commit {provenance.commit}" if provenance.commit else ""
    raise Conflict(
        f"The tool {tool.name!r} belongs to {tool.owner}: change {provenance.path or 'it'} in {repository}{commit}."
    )
