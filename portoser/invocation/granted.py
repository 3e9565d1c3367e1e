"""Which packages of a tool the policy grants no more, told again at each call."""

from portoser.catalog.policy import Policy
from portoser.catalog.requirement import ungranted
from portoser.catalog.tool import RegisteredTool


class GrantedPackages:
    """Looks a tool's packages up once for each policy: calls of one follow each other closely."""

    def __init__(self) -> None:
        self._policy: Policy | None = None
        self._told: dict[tuple[str, str, tuple[str, ...]], str | None] = {}

    def refusal(self, policy: Policy, tool: RegisteredTool) -> str | None:
        """Why the tool is not run, where a package that it requires is not granted any more."""
        requires = tool.revision.requires
        if not requires:
            return None
        if policy is not self._policy:
            self._policy, self._told = policy, {}
        key = (tool.name, tool.owner, requires)
        if key not in self._told:
            taken_back = ungranted(policy, requires, owner=tool.owner, tool=tool.name)
            told = f"The policy does not let {tool.name} require {', '.join(taken_back)} any more."
            self._told[key] = told if taken_back else None
        return self._told[key]
