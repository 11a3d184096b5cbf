"""Learners: frozen pytrees whose methods return new ones, after ``jaxrl5/agents``."""

from idql_func.agents.agent import Agent
from idql_func.agents.ddpm_iql import DDPMIQLLearner, GeneralDDPMIQLLearner

__all__ = ["Agent", "DDPMIQLLearner", "GeneralDDPMIQLLearner"]
