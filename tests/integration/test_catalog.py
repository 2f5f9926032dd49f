"""Upstreams, deployments, routes, aliases and grants, on both kinds of database."""

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.fakes.catalogs import Path, create_grant, create_path
from tests.fakes.organizations import (
    ALL,
    NOW_US,
    actor,
    create_organization,
    create_place,
    create_project,
)

from penstock.audit import service as audit
from penstock.catalog import aliases, deployments, errors, routes, upstreams
from penstock.catalog.objects import (
    Choice,
    NewAlias,
    NewDeployment,
    NewGrant,
    NewRoute,
    NewUpstream,
    Route,
)
from penstock.kit.errors import PenstockError
from penstock.storage.changes import get_last_change, list_changes
from penstock.storage.database import Database
from penstock.storage.errors import OBJECT_UNKNOWN, VERSION_CONFLICT
from penstock.storage.paging import PageRequest
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession, WriteSession
from penstock.tenancy import service as tenancy
from penstock.tenancy.errors import NAME_TAKEN, STATUS_CONFLICT

Work = Callable[[WriteSession], Awaitable[Any]]
PAGE = PageRequest()


async def _refused(database: Database, work: Work) -> PenstockError:
    with pytest.raises(PenstockError) as caught:
        async with database.write(ALL) as session:
            await work(session)
    return caught.value


async def test_an_upstream_lives(database: Database) -> None:
    """It is created with defaults, found, changed version after version, and gone for good."""
    async with database.write(ALL) as session:
        created = await upstreams.create_upstream(
            session, actor(), NewUpstream(name="gpu", endpoints=["http://gpu:8000"], region="eu-de")
        )
    assert created.id.startswith("ups_")
    assert (created.provider, created.version, created.is_disabled) == (
        "openai_compatible",
        1,
        False,
    )
    async with database.write(ALL) as session:
        after = await upstreams.update_upstream(
            session,
            actor(NOW_US + 1),
            created.id,
            {"region": None, "timeouts": {"connect_ms": 100}, "is_disabled": True},
            expected_version=1,
        )
    expected = dataclasses.replace(
        created,
        region=None,
        timeouts={"connect_ms": 100},
        is_disabled=True,
        version=2,
        updated_at_us=NOW_US + 1,
    )
    assert after == expected
    async with database.read(ALL) as reader:
        assert await upstreams.get_upstream(reader, created.id) == after
        assert await upstreams.find_upstream_by_name(reader, "gpu") == after
        assert await upstreams.find_upstream_by_name(reader, "other") is None
        assert (await upstreams.list_upstreams(reader, PAGE, region="eu-de")).items == []
        assert (await upstreams.list_upstreams(reader, PAGE, name="gpu")).items == [after]
    async with database.write(ALL) as session:
        await upstreams.delete_upstream(session, actor(), created.id, expected_version=2)
    error = await _refused(database, lambda session: upstreams.get_upstream(session, created.id))
    assert error.error is OBJECT_UNKNOWN


async def test_every_change_is_told(database: Database) -> None:
    """Each change is in the audit log and, by name, in the change feed; one of nothing is not."""
    path = await create_path(database)
    async with database.write(ALL) as session:
        await upstreams.update_upstream(
            session, actor(), path.upstream.id, {"endpoints": ["http://127.0.0.1:8000"]}
        )
        await routes.update_route(
            session, actor(), path.route.id, {"choices": list(path.route.choices)}
        )
        await aliases.update_alias(session, actor(), path.alias.id, {"is_open": True})
        await aliases.delete_alias(session, actor(), path.alias.id)
    async with database.read(ALL) as session:
        changes = [change[1:] for change in await list_changes(session, 0, 100)]
        entries = await audit.list_entries(session, None)
    kinds = ["upstream", "deployment", "route", "alias"]
    assert changes == [(kind, "fast") for kind in [*kinds, "alias", "alias"]]
    assert [entry.action for entry in entries] == [
        *(f"{kind}.create" for kind in kinds),
        "alias.update",
        "alias.delete",
    ]
    update, delete = entries[-2:]
    assert update.before is not None
    assert update.after is not None
    assert (update.before["is_open"], update.after["is_open"]) == (False, True)
    assert (delete.before, delete.after) == (update.after, None)


async def test_names_are_taken_once(database: Database) -> None:
    """A second object of a kind with the same name is refused; a deleted one frees its name."""
    path = await create_path(database)
    works: list[Work] = [
        lambda session: upstreams.create_upstream(
            session, actor(), NewUpstream(name="fast", endpoints=["http://other"])
        ),
        lambda session: deployments.create_deployment(
            session,
            actor(),
            NewDeployment(name="fast", upstream_id=path.upstream.id, model="x"),
        ),
        lambda session: routes.create_route(
            session, actor(), NewRoute(name="fast", choices=path.route.choices)
        ),
        lambda session: aliases.create_alias(
            session, actor(), NewAlias(name="fast", route_id=path.route.id)
        ),
    ]
    for work in works:
        assert (await _refused(database, work)).error is NAME_TAKEN
    async with database.write(ALL) as session:
        await aliases.delete_alias(session, actor(), path.alias.id)
        again = await works[-1](session)
    assert again.id != path.alias.id


async def test_what_is_used_stays(database: Database) -> None:
    """Deleting what something else names is refused, with the name of what names it."""
    path = await create_path(database)
    organization = await create_organization(database)
    grant = await create_grant(database, path.alias, organization)
    works: list[tuple[Work, str]] = [
        (lambda s: upstreams.delete_upstream(s, actor(), path.upstream.id), "deployment fast"),
        (lambda s: deployments.delete_deployment(s, actor(), path.deployment.id), "route fast"),
        (lambda s: routes.delete_route(s, actor(), path.route.id), "alias fast"),
        (lambda s: aliases.delete_alias(s, actor(), path.alias.id), f"grant {grant.id}"),
    ]
    for work, user in works:
        error = await _refused(database, work)
        assert error.error is errors.CATALOG_IN_USE
        assert str(error) == f"It is used by {user}."
    async with database.write(ALL) as session:
        await aliases.delete_grant(session, actor(), grant.id)
    for work, _ in reversed(works):
        async with database.write(ALL) as session:
            await work(session)


@pytest.mark.parametrize(
    ("member", "work"),
    [
        (
            "upstream_id",
            lambda s, path: deployments.update_deployment(
                s, actor(), path.deployment.id, {"upstream_id": "ups_none"}
            ),
        ),
        (
            "credential_id",
            lambda s, path: deployments.update_deployment(
                s, actor(), path.deployment.id, {"credential_id": "crd_none"}
            ),
        ),
        (
            "credential_id",
            lambda s, path: upstreams.update_upstream(
                s, actor(), path.upstream.id, {"credential_id": "crd_none"}
            ),
        ),
        (
            "choices[1].deployment_id",
            lambda s, path: routes.update_route(
                s,
                actor(),
                path.route.id,
                {"choices": [*path.route.choices, Choice(deployment_id="dep_none")]},
            ),
        ),
        (
            "fallback_id",
            lambda s, path: routes.update_route(
                s, actor(), path.route.id, {"fallback_id": "rte_none"}
            ),
        ),
        (
            "route_id",
            lambda s, path: aliases.update_alias(
                s, actor(), path.alias.id, {"route_id": "rte_none"}
            ),
        ),
        (
            "alias_id",
            lambda s, _: aliases.create_grant(
                s, actor(), NewGrant(alias_id="als_none", organization_id="org_none")
            ),
        ),
        (
            "organization_id",
            lambda s, path: aliases.create_grant(
                s, actor(), NewGrant(alias_id=path.alias.id, organization_id="org_none")
            ),
        ),
    ],
)
async def test_dangling_references_are_refused(
    database: Database, member: str, work: Callable[[WriteSession, Path], Awaitable[object]]
) -> None:
    """What names something that is not there is refused, with the member that does."""
    path = await create_path(database)
    error = await _refused(database, lambda session: work(session, path))
    assert error.error is OBJECT_UNKNOWN
    assert str(error).startswith(f"`{member}` names ")


async def test_a_grant_is_for_a_project_of_its_organization(database: Database) -> None:
    """A grant names an organization's own project, is there once, and for nobody archived."""
    path = await create_path(database)
    organization, project = await create_place(database)
    other = await create_organization(database, "other")
    foreign = NewGrant(alias_id=path.alias.id, organization_id=other.id, project_id=project.id)
    error = await _refused(database, lambda s: aliases.create_grant(s, actor(), foreign))
    assert error.error is OBJECT_UNKNOWN
    assert str(error).startswith("`project_id` names no ")
    for owner in (organization, project):
        grant = await create_grant(database, path.alias, owner)
        new = NewGrant(
            alias_id=path.alias.id,
            organization_id=grant.organization_id,
            project_id=grant.project_id,
        )
        with pytest.raises(PenstockError) as caught:
            async with database.write(ALL) as session:
                await aliases.create_grant(session, actor(), new)
        assert caught.value.error is errors.GRANT_EXISTS
    async with database.write(ALL) as session:
        await tenancy.archive_organization(session, actor(), other.id)
    archived = NewGrant(alias_id=path.alias.id, organization_id=other.id)
    error = await _refused(database, lambda s: aliases.create_grant(s, actor(), archived))
    assert error.error is STATUS_CONFLICT
    async with database.read(ALL) as session:
        names = [name for _, kind, name in await list_changes(session, 0, 100) if kind == "grant"]
        entries = await audit.list_entries(session, organization.id)
    assert names == [f"fast\n{organization.id}\n", f"fast\n{organization.id}\n{project.id}"]
    assert [entry.action for entry in entries][-2:] == ["grant.create", "grant.create"]


async def test_fallbacks_make_no_circle(database: Database) -> None:
    """A change that would lead a route's fallbacks back to it is refused, naming the circle."""
    found: list[Route] = [
        (await create_path(database, name)).route for name in ("one", "two", "three", "four")
    ]
    one, two, three, four = found

    async def fall_back(route: Route, fallback: Route | None) -> None:
        async with database.write(ALL) as session:
            await routes.update_route(
                session,
                actor(),
                route.id,
                {"fallback_id": None if fallback is None else fallback.id},
            )

    await fall_back(four, one)
    await fall_back(one, two)
    await fall_back(two, three)
    for route, fallback, circle in (
        (three, one, "three -> one -> two -> three"),
        (two, two, "two -> two"),
        (three, four, "three -> four -> one -> two -> three"),
    ):
        with pytest.raises(PenstockError, match="circle") as caught:
            await fall_back(route, fallback)
        assert caught.value.error is errors.FALLBACK_CYCLE
        assert str(caught.value).endswith(f": {circle}.")
    error = await _refused(database, lambda s: routes.delete_route(s, actor(), two.id))
    assert "route one" in str(error)
    await fall_back(two, None)
    await fall_back(three, one)


async def test_choices_are_replaced_as_a_whole(database: Database) -> None:
    """A route's choices come back in their order with their weights, and leave nothing behind."""
    path = await create_path(database)
    others = [(await create_path(database, name)).deployment for name in ("a", "b")]
    ids = [path.deployment.id, *(other.id for other in others)]
    for weights in ((3, 0, 1000), (1,), (0, 5)):
        chosen = zip(reversed(ids), weights, strict=False)
        choices = [Choice(deployment_id=name, weight=weight) for name, weight in chosen]
        async with database.write(ALL) as session:
            after = await routes.update_route(session, actor(), path.route.id, {"choices": choices})
        async with database.read(ALL) as session:
            assert await routes.get_route(session, path.route.id) == after
            listed = await routes.list_routes(session, PAGE)
        assert after.choices == choices
        assert after in listed.items


async def test_organizations_see_what_they_may_use(database: Database) -> None:
    """A tenant sees aliases that are open or granted to it or its projects, and its own grants."""
    await create_path(database, "open", is_open=True)
    closed, granted, of_project = [
        (await create_path(database, name)).alias for name in ("closed", "granted", "project")
    ]
    organization, project = await create_place(database)
    second = await create_project(database, organization, "second")
    other, _ = await create_place(database, "other")
    grants = [
        await create_grant(database, granted, organization),
        await create_grant(database, of_project, project),
    ]
    await create_grant(database, closed, other)

    async def list_names(session: ReadSession, project_id: str | None = None) -> list[str]:
        page = await aliases.list_aliases(session, PAGE, project_id=project_id)
        return sorted(alias.name for alias in page.items)

    async with database.read(Scope.of(organization.id)) as session:
        assert await list_names(session) == ["granted", "open", "project"]
        assert (await aliases.get_alias(session, of_project.id)) == of_project
        with pytest.raises(PenstockError):
            await aliases.get_alias(session, of_project.id, project_id=second.id)
        with pytest.raises(PenstockError):
            await aliases.get_alias(session, closed.id)
        assert await list_names(session, second.id) == ["granted", "open"]
        assert await aliases.find_alias_by_name(session, "granted") == granted
        assert await aliases.find_alias_by_name(session, "closed") is None
        found = await aliases.list_grants(session, PAGE)
        assert {grant.id for grant in found.items} == {grant.id for grant in grants}
        for reading in (
            upstreams.list_upstreams(session, PAGE),
            deployments.list_deployments(session, PAGE),
            routes.list_routes(session, PAGE),
        ):
            with pytest.raises(PermissionError):
                await reading
    async with database.read(Scope.of(other.id)) as session:
        assert await list_names(session) == ["closed", "open"]
    async with database.read(ALL) as session:
        assert await list_names(session) == ["closed", "granted", "open", "project"]


async def test_organizations_change_nothing(database: Database) -> None:
    """In an organization's scope no use case changes the catalog, whatever asked for it."""
    path = await create_path(database)
    organization = await create_organization(database)
    grant = await create_grant(database, path.alias, organization)
    works: list[Work] = [
        lambda s: upstreams.delete_upstream(s, actor(), path.upstream.id),
        lambda s: aliases.update_alias(s, actor(), path.alias.id, {"is_open": True}),
        lambda s: aliases.create_alias(
            s, actor(), NewAlias(name="mine", route_id=path.route.id, is_open=True)
        ),
        lambda s: aliases.create_grant(
            s, actor(), NewGrant(alias_id=path.alias.id, organization_id=organization.id)
        ),
        lambda s: aliases.delete_grant(s, actor(), grant.id),
    ]
    for work in works:
        with pytest.raises(PermissionError):
            async with database.write(Scope.of(organization.id)) as session:
                await work(session)


async def test_a_stale_change_is_refused(database: Database) -> None:
    """Who changes or deletes what somebody else changed since they read it is told so."""
    path = await create_path(database)
    async with database.write(ALL) as session:
        await aliases.update_alias(session, actor(), path.alias.id, {"is_open": True})
        last = await get_last_change(session)
    for work in (
        lambda s: aliases.update_alias(
            s, actor(), path.alias.id, {"is_open": False}, expected_version=1
        ),
        lambda s: aliases.delete_alias(s, actor(), path.alias.id, expected_version=1),
    ):
        assert (await _refused(database, work)).error is VERSION_CONFLICT
    async with database.read(ALL) as session:
        assert await get_last_change(session) == last


async def test_residency_is_kept_in_its_one_form(database: Database) -> None:
    """Allowed data classes and regions are sorted, each there once, and null again for all."""
    organization, project = await create_place(database)
    async with database.write(ALL) as session:
        changed = await tenancy.update_organization(
            session, actor(), organization.id, {"allowed_regions": ["us", "eu-de", "us"]}
        )
        narrowed = await tenancy.update_project(
            session, actor(), project.id, {"allowed_data_classes": []}
        )
    assert (changed.allowed_regions, changed.allowed_data_classes) == (["eu-de", "us"], None)
    assert (narrowed.allowed_data_classes, narrowed.allowed_regions) == ([], None)
    async with database.write(ALL) as session:
        again = await tenancy.update_organization(
            session, actor(), organization.id, {"allowed_regions": None}
        )
    assert again.allowed_regions is None
